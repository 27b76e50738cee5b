#include "client/description.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "client/utf8.h"

namespace lasp::client {

void Description::Line(absl::string_view name, absl::string_view value, Style style) {
  if (!value.empty()) {
    absl::StrAppendFormat(&text_, "%-15s%s\n", absl::StrCat(name, ":"),
                          Paint(Printable(value), style, terminal_.color));
  }
}

void Description::Block(absl::string_view heading, std::string block) {
  while (!block.empty() && block.back() == '\n') {
    block.pop_back();
  }
  absl::StrAppend(&text_, "\n", Paint(absl::StrCat(heading, ":"), Style::kBold, terminal_.color),
                  "\n  ", absl::StrReplaceAll(block, {{"\n", "\n  "}}), "\n");
}

void Description::TableBlock(absl::string_view heading, const Table& table) {
  Terminal indented = terminal_;
  indented.width = std::max(0, terminal_.width - 2);
  Block(heading, table.Render(indented));
}

}  // namespace lasp::client
