#include "client/enum_names.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace lasp::client {
namespace {

// LrpeTheta gives LRPE_THETA_.
std::string Prefix(const google::protobuf::EnumDescriptor& type) {
  std::string prefix;
  for (const char c : type.name()) {
    const auto letter = static_cast<unsigned char>(c);
    if (absl::ascii_isupper(letter) && !prefix.empty()) {
      prefix += '_';
    }
    prefix += absl::ascii_toupper(letter);
  }
  return prefix + "_";
}

}  // namespace

std::string ShortEnumName(const google::protobuf::EnumValueDescriptor& value) {
  absl::string_view name = value.name();
  absl::ConsumePrefix(&name, Prefix(*value.type()));
  return std::string(name);
}

std::string ShortEnumName(const google::protobuf::EnumDescriptor& type, int number) {
  const auto* value = type.FindValueByNumber(number);
  return value == nullptr ? absl::StrCat(number) : ShortEnumName(*value);
}

const google::protobuf::EnumValueDescriptor* FindEnumValue(
    const google::protobuf::EnumDescriptor& type, absl::string_view name) {
  const auto* value = type.FindValueByName(std::string(name));
  return value != nullptr ? value : type.FindValueByName(absl::StrCat(Prefix(type), name));
}

std::vector<std::string> ShortEnumNames(const google::protobuf::EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) {
    if (type.value(i)->number() != 0 || ShortEnumName(*type.value(i)) != "UNSPECIFIED") {
      names.push_back(ShortEnumName(*type.value(i)));
    }
  }
  return names;
}

}  // namespace lasp::client
