#include "client/scalar_reader.h"

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/enum_names.h"
#include "client/nearest_name.h"
#include "client/utf8.h"

namespace lasp::client {
namespace {

absl::Status Expected(absl::string_view what, const YamlNode& node) {
  return absl::InvalidArgumentError(absl::StrCat("expected ", what, ", got ", DescribeNode(node)));
}

bool IsHexadecimal(absl::string_view text) {
  return absl::StartsWith(text, "0x") || absl::StartsWith(text, "-0x");
}

// Digits, sign, point and exponent only: strtod would also take "nan", "inf" and 0x1p3.
bool IsDecimal(absl::string_view text) {
  return !text.empty() && text.find_first_not_of("+-0123456789.eE") == absl::string_view::npos;
}

// 1e6 and 2.0 are whole; beyond 2^53 a double is no longer exact.
bool ReadWholeDouble(absl::string_view text, double* value) {
  constexpr double kExact = 9007199254740992.0;
  return IsDecimal(text) && absl::SimpleAtod(text, value) && std::floor(*value) == *value &&
         std::fabs(*value) <= kExact;
}

bool IsWhole(absl::string_view text) {
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) {
    text.remove_prefix(1);
  }
  return !text.empty() && text.find_first_not_of("0123456789") == absl::string_view::npos;
}

}  // namespace

absl::StatusOr<int64_t> ReadSigned(const YamlNode& node, int64_t lowest, int64_t highest) {
  const std::string& text = node.text;
  int64_t value = 0;
  double whole = 0;
  bool read = false;
  bool too_large = false;
  if (node.kind == YamlNode::Kind::kScalar) {
    if (IsHexadecimal(text)) {
      read = absl::SimpleHexAtoi(text, &value);
    } else if (absl::SimpleAtoi(text, &value)) {
      read = true;
    } else if (IsWhole(text)) {
      too_large = true;
    } else if (ReadWholeDouble(text, &whole)) {
      read = true;
      value = static_cast<int64_t>(whole);
    }
  }
  if (too_large || (read && (value < lowest || value > highest))) {
    return Expected(absl::StrCat("a whole number from ", lowest, " to ", highest), node);
  }
  return read ? absl::StatusOr<int64_t>(value) : Expected("a whole number", node);
}

absl::StatusOr<uint64_t> ReadUnsigned(const YamlNode& node, uint64_t highest) {
  const std::string& text = node.text;
  uint64_t value = 0;
  double whole = 0;
  bool read = false;
  bool out_of_range = false;
  if (node.kind == YamlNode::Kind::kScalar) {
    if (IsHexadecimal(text)) {
      read = absl::SimpleHexAtoi(text, &value);
    } else if (absl::SimpleAtoi(text, &value)) {
      read = true;
    } else if (IsWhole(text)) {
      out_of_range = true;
    } else if (ReadWholeDouble(text, &whole)) {
      read = true;
      out_of_range = whole < 0;
      value = out_of_range ? 0 : static_cast<uint64_t>(whole);
    }
  }
  if (out_of_range || (read && value > highest)) {
    return Expected(absl::StrCat("a whole number from 0 to ", highest), node);
  }
  return read ? absl::StatusOr<uint64_t>(value) : Expected("a whole number", node);
}

absl::StatusOr<double> ReadDouble(const YamlNode& node) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (node.kind != YamlNode::Kind::kScalar) {
    return Expected("a number", node);
  }
  const std::string lower = absl::AsciiStrToLower(node.text);
  if (lower == "nan" || lower == ".nan") {
    return std::numeric_limits<double>::quiet_NaN();
  }
  if (lower == "infinity" || lower == ".inf" || lower == "+.inf") {
    return kInfinity;
  }
  if (lower == "-infinity" || lower == "-.inf") {
    return -kInfinity;
  }
  double value = 0;
  if (!IsDecimal(node.text) || !absl::SimpleAtod(node.text, &value)) {
    return Expected("a number", node);
  }
  if (std::isinf(value)) {
    return Expected("a number below 1.8e308", node);
  }
  return value;
}

absl::StatusOr<bool> ReadBool(const YamlNode& node) {
  if (node.kind == YamlNode::Kind::kScalar && !node.quoted) {
    const std::string lower = absl::AsciiStrToLower(node.text);
    if (lower == "true") {
      return true;
    }
    if (lower == "false") {
      return false;
    }
  }
  return Expected("true or false", node);
}

absl::StatusOr<std::string> ReadString(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar) {
    return Expected("a text", node);
  }
  if (!IsValidUtf8(node.text)) {
    return absl::InvalidArgumentError("expected a text in UTF-8");
  }
  return node.text;
}

absl::StatusOr<std::string> ReadBytes(const YamlNode& node) {
  std::string bytes;
  if (node.kind != YamlNode::Kind::kScalar || !absl::Base64Unescape(node.text, &bytes)) {
    return Expected("bytes in base64", node);
  }
  return bytes;
}

absl::StatusOr<int> ReadEnum(const YamlNode& node, const google::protobuf::EnumDescriptor& type) {
  const std::vector<std::string> names = ShortEnumNames(type);
  const std::string expected = absl::StrCat("one of ", absl::StrJoin(names, ", "));
  if (node.kind != YamlNode::Kind::kScalar) {
    return Expected(expected, node);
  }
  if (const auto* value = FindEnumValue(type, node.text)) {
    return value->number();
  }
  int number = 0;
  if (!node.quoted && absl::SimpleAtoi(node.text, &number)) {
    return number;
  }
  const absl::Status status = Expected(expected, node);
  return absl::InvalidArgumentError(absl::StrCat(status.message(), Suggestion(node.text, names)));
}

}  // namespace lasp::client
