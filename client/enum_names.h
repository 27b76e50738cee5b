// Enum values without the prefix the protos give them: STATE_RUNNING is RUNNING to people.
#pragma once

#include <google/protobuf/descriptor.h>

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace lasp::client {

// The value's name without its enum's prefix.
std::string ShortEnumName(const google::protobuf::EnumValueDescriptor& value);
// The same by number; the number itself where this build does not know it.
std::string ShortEnumName(const google::protobuf::EnumDescriptor& type, int number);

// With or without the prefix; null where there is none of that name.
const google::protobuf::EnumValueDescriptor* FindEnumValue(
    const google::protobuf::EnumDescriptor& type, absl::string_view name);

// The short names, but for UNSPECIFIED.
std::vector<std::string> ShortEnumNames(const google::protobuf::EnumDescriptor& type);

}  // namespace lasp::client
