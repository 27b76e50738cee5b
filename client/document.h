// Messages as JSON and YAML documents: the stable contract of `-o json` and `-o yaml`.
//
// Proto field names; fields without presence always, optional and message fields only when set,
// lists and maps always; int64 as numbers; NaN, Infinity and -Infinity as strings; enum values
// without their prefix; times as RFC 3339, durations as "1.5s"; bytes as base64;
// google.protobuf.Any as its fields beside "@type" where the type is known.
#pragma once

#include <google/protobuf/message.h>

#include <nlohmann/json.hpp>
#include <string>

namespace lasp::client {

// Keeps the order of its keys.
using Document = nlohmann::ordered_json;

Document ToDocument(const google::protobuf::Message& message);

// Indented by two spaces, without a line break at the end. Bytes that are not UTF-8 become U+FFFD.
std::string JsonText(const Document& document);
// On one line.
std::string JsonLine(const Document& document);
// Block style, with a line break at the end.
std::string YamlText(const Document& document);

}  // namespace lasp::client
