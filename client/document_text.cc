#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/document.h"

namespace lasp::client {
namespace {

std::string Dump(const Document& document, int indent) {
  // `replace`: what is not UTF-8 must not throw.
  return document.dump(indent, ' ', false, Document::error_handler_t::replace);
}

// Whether a YAML reader gives this text back when it stands there without quotes: a word that looks
// like no other type. Anything doubtful is quoted.
bool IsPlainText(const std::string& text) {
  static constexpr const char* kReserved[] = {"true", "false", "yes", "no",  "on",       "off",
                                              "null", "y",     "n",   "nan", "infinity", "inf"};
  if (text.empty() || !absl::ascii_isalpha(static_cast<unsigned char>(text.front()))) {
    return false;
  }
  for (const char c : text) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && !absl::StrContains("_-./@", c)) {
      return false;
    }
  }
  const std::string lower = absl::AsciiStrToLower(text);
  for (const char* word : kReserved) {
    if (lower == word) {
      return false;
    }
  }
  return true;
}

// JSON's quoted strings are YAML's.
std::string YamlScalar(const Document& value) {
  if (value.is_string() && IsPlainText(value.get_ref<const std::string&>())) {
    return value.get<std::string>();
  }
  return Dump(value, -1);
}

std::string YamlKey(const std::string& key) { return YamlScalar(Document(key)); }

bool IsBlock(const Document& value) { return value.is_structured() && !value.empty(); }

void AppendYaml(const Document& value, size_t indent, std::string* text);

// What follows `key:` or `-`, up to and with the line break.
void AppendYamlValue(const Document& value, size_t indent, std::string* text) {
  if (IsBlock(value)) {
    text->push_back('\n');
    AppendYaml(value, indent, text);
  } else {
    absl::StrAppend(text, " ", YamlScalar(value), "\n");
  }
}

void AppendYaml(const Document& value, size_t indent, std::string* text) {
  const std::string margin(indent, ' ');
  if (value.is_array()) {
    for (const Document& item : value) {
      absl::StrAppend(text, margin, "-");
      if (IsBlock(item) && item.is_object()) {
        // The first key goes on the line of the dash.
        std::string block;
        AppendYaml(item, indent + 2, &block);
        absl::StrAppend(text, " ", block.substr(indent + 2));
      } else {
        AppendYamlValue(item, indent + 2, text);
      }
    }
    return;
  }
  for (const auto& [key, item] : value.items()) {
    absl::StrAppend(text, margin, YamlKey(key), ":");
    AppendYamlValue(item, indent + 2, text);
  }
}

}  // namespace

std::string JsonText(const Document& document) { return Dump(document, 2); }

std::string JsonLine(const Document& document) { return Dump(document, -1); }

std::string YamlText(const Document& document) {
  if (!IsBlock(document)) {
    return YamlScalar(document) + "\n";
  }
  std::string text;
  AppendYaml(document, 0, &text);
  return text;
}

}  // namespace lasp::client
