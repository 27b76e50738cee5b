#include "client/output_table.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "client/utf8.h"

namespace lasp::client {
namespace {

constexpr int kGap = 2;
// No column is cut below this: its text would say nothing.
constexpr int kMinCut = 6;

void AppendCell(const Cell& cell, const Column& column, int width, bool last,
                const Terminal& terminal, std::string* line) {
  const std::string text =
      terminal.width > 0 ? TruncateToWidth(cell.text, width, terminal.utf8) : cell.text;
  const std::string padding(static_cast<size_t>(std::max(0, width - DisplayWidth(text))), ' ');
  const std::string painted = Paint(text, cell.style, terminal.color);
  if (column.right) {
    absl::StrAppend(line, padding, painted);
  } else {
    absl::StrAppend(line, painted, last ? "" : padding);
  }
  if (!last) {
    line->append(kGap, ' ');
  }
}

}  // namespace

void Table::AddRow(std::vector<Cell> cells) {
  for (Cell& cell : cells) {
    cell.text = Printable(cell.text);
  }
  rows_.push_back(std::move(cells));
}

std::vector<int> Table::Widths(const Terminal& terminal, bool with_header) const {
  std::vector<int> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    int width = std::max(columns_[i].min_width, with_header ? DisplayWidth(columns_[i].header) : 0);
    for (const auto& row : rows_) {
      width = std::max(width, DisplayWidth(row[i].text));
    }
    widths.push_back(width);
  }
  if (terminal.width <= 0) {
    return widths;
  }
  const int gaps = kGap * (static_cast<int>(widths.size()) - 1);
  while (std::accumulate(widths.begin(), widths.end(), gaps) > terminal.width) {
    // The first column names the row: it is cut last. Numbers never are: one without its end is
    // another number.
    size_t widest = 0;
    for (size_t i = 1; i < widths.size(); ++i) {
      if (!columns_[i].right && widths[i] > kMinCut &&
          (widest == 0 || widths[i] > widths[widest])) {
        widest = i;
      }
    }
    if (widths[widest] <= kMinCut || columns_[widest].right) {
      break;
    }
    --widths[widest];
  }
  return widths;
}

std::string Table::Render(const Terminal& terminal, bool with_header) const {
  const std::vector<int> widths = Widths(terminal, with_header);
  std::string text;
  const auto append_line = [&](const auto& cell_at) {
    for (size_t i = 0; i < columns_.size(); ++i) {
      AppendCell(cell_at(i), columns_[i], widths[i], i + 1 == columns_.size(), terminal, &text);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  };
  if (with_header) {
    append_line([&](size_t i) { return Cell(columns_[i].header, Style::kBold); });
  }
  for (const auto& row : rows_) {
    append_line([&](size_t i) { return row[i]; });
  }
  return text;
}

}  // namespace lasp::client
