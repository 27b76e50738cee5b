// The text of a `lasp describe`: names and values, and blocks below them.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "client/output_table.h"
#include "client/terminal.h"

namespace lasp::client {

// Values come from outside: what would move a terminal's cursor is escaped. Not thread-safe.
class Description {
 public:
  explicit Description(const Terminal& terminal) : terminal_(terminal) {}

  // `Name:          value`; nothing for an empty value.
  void Line(absl::string_view name, absl::string_view value, Style style = Style::kPlain);

  // A heading and a block below it, indented; the block as it is.
  void Block(absl::string_view heading, std::string block);

  void TableBlock(absl::string_view heading, const Table& table);

  std::string Take() { return std::move(text_); }

 private:
  const Terminal terminal_;
  std::string text_;
};

}  // namespace lasp::client
