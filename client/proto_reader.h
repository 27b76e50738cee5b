// YAML or JSON into a message by reflection, with every violation at once.
#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "client/yaml_document.h"
#include "proto/rpc/error_details.h"

namespace lasp::client {

// Fills `message` from `node`, a map of proto field names (snake_case). A null leaves its field
// unset. Enum values are read with or without their prefix, times as RFC 3339, durations as "1.5s",
// bytes as base64, google.protobuf.Any by its "@type".
//
// Appends to `violations` what is wrong: unknown fields (with the nearest name), keys given twice,
// wrong types and numbers out of range, each with its path below `path` and its line.
void ReadMessage(const YamlNode& node, const std::string& path, google::protobuf::Message* message,
                 std::vector<FieldViolation>* violations);

// Sets one field of `message`, replacing what it held.
void ReadField(const YamlNode& node, const std::string& path,
               const google::protobuf::FieldDescriptor& field, google::protobuf::Message* message,
               std::vector<FieldViolation>* violations);

// The fields of a message, in the order of their declaration.
std::vector<std::string> FieldNames(const google::protobuf::Descriptor& type);

// `parent.name`, or `name` where parent is empty.
std::string JoinPath(absl::string_view parent, absl::string_view name);

}  // namespace lasp::client
