// Tables without borders: UPPERCASE headers, two spaces between columns.
#pragma once

#include <string>
#include <vector>

#include "client/terminal.h"

namespace lasp::client {

struct Column {
  std::string header;
  bool right = false;
  // At least this wide, for tables that grow row by row.
  int min_width = 0;
};

struct Cell {
  Cell(std::string t, Style s = Style::kPlain)  // NOLINT(google-explicit-constructor)
      : text(std::move(t)), style(s) {}

  std::string text;
  Style style;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // As many cells as columns. Control characters are taken out.
  void AddRow(std::vector<Cell> cells);

  bool empty() const { return rows_.empty(); }

  // Cut to the terminal's width, the widest columns first and the first column last; whole where
  // the terminal has no width.
  std::string Render(const Terminal& terminal, bool with_header = true) const;

 private:
  std::vector<int> Widths(const Terminal& terminal, bool with_header) const;

  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace lasp::client
