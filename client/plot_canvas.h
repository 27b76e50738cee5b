// Dots on a terminal: Braille, two by four in a character, or one character each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lasp::client {

class PlotCanvas {
 public:
  // In characters, both positive.
  PlotCanvas(int columns, int rows, bool braille);

  int dot_columns() const { return columns_ * dots_across_; }

  int dot_rows() const { return rows_ * dots_down_; }

  int dots_across() const { return dots_across_; }

  int dots_down() const { return dots_down_; }

  // A straight line between two dots on the canvas, both drawn; x from the left, y from the bottom.
  void Line(int x0, int y0, int x1, int y1);

  // A row of characters, the first one at the top, without blanks at its end.
  std::string Row(int row) const;

 private:
  void Dot(int x, int y);

  const int columns_;
  const int rows_;
  const int dots_across_;
  const int dots_down_;
  // A character each: the bits of its dots.
  std::vector<uint8_t> cells_;
};

}  // namespace lasp::client
