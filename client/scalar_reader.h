// What a scalar of a YAML or JSON file means for a field of a given type.
#pragma once

#include <google/protobuf/descriptor.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "client/yaml_document.h"

namespace lasp::client {

// Each gives INVALID_ARGUMENT that says what was expected and what is there. Whole numbers may be
// written 1e6 or 0x10; both kinds of number may be quoted, as protobuf's JSON does with int64.
absl::StatusOr<int64_t> ReadSigned(const YamlNode& node, int64_t lowest, int64_t highest);
absl::StatusOr<uint64_t> ReadUnsigned(const YamlNode& node, uint64_t highest);
// Also NaN, Infinity, -Infinity and YAML's .nan, .inf, -.inf.
absl::StatusOr<double> ReadDouble(const YamlNode& node);
absl::StatusOr<bool> ReadBool(const YamlNode& node);
// Any scalar as it is written; it must be UTF-8.
absl::StatusOr<std::string> ReadString(const YamlNode& node);
// Base64.
absl::StatusOr<std::string> ReadBytes(const YamlNode& node);
// A name with or without the prefix, or a number.
absl::StatusOr<int> ReadEnum(const YamlNode& node, const google::protobuf::EnumDescriptor& type);

}  // namespace lasp::client
