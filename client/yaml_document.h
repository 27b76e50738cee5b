// YAML (and so JSON) text as a tree that remembers its lines.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lasp::client {

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };

  Kind kind = Kind::kNull;
  // The key of this value where its parent is a map.
  std::string key;
  int key_line = 0;
  // Of a scalar.
  std::string text;
  // Whether the scalar was quoted, and so is a string whatever it looks like.
  bool quoted = false;
  // From 1.
  int line = 0;
  // Of a list or a map, in the order of the text. Keys may occur twice: readers refuse that.
  std::vector<YamlNode> items;
};

// "a map", "a list", "nothing" or the scalar's text in quotes.
std::string DescribeNode(const YamlNode& node);

// Reads exactly one document. INVALID_ARGUMENT with line and column on a syntax error, on a second
// document, and on a tree of more than 100,000 nodes (aliases counted out).
absl::StatusOr<YamlNode> ParseYaml(absl::string_view text);

}  // namespace lasp::client
