#include "client/plot_canvas.h"

#include <cstdlib>

namespace lasp::client {
namespace {

// By row from the top and column: the bits of U+2800.
constexpr uint8_t kBrailleBits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};

std::string BrailleCharacter(uint8_t bits) {
  return {'\xe2', static_cast<char>(0xa0 | (bits >> 6)), static_cast<char>(0x80 | (bits & 0x3f))};
}

}  // namespace

PlotCanvas::PlotCanvas(int columns, int rows, bool braille)
    : columns_(columns),
      rows_(rows),
      dots_across_(braille ? 2 : 1),
      dots_down_(braille ? 4 : 1),
      cells_(static_cast<size_t>(columns) * static_cast<size_t>(rows)) {}

void PlotCanvas::Dot(int x, int y) {
  const int from_top = dot_rows() - 1 - y;
  const auto cell = static_cast<size_t>(from_top / dots_down_) * static_cast<size_t>(columns_) +
                    static_cast<size_t>(x / dots_across_);
  cells_[cell] |= kBrailleBits[from_top % dots_down_][x % dots_across_];
}

// Bresenham.
void PlotCanvas::Line(int x0, int y0, int x1, int y1) {
  const int dx = std::abs(x1 - x0);
  const int dy = -std::abs(y1 - y0);
  const int step_x = x0 < x1 ? 1 : -1;
  const int step_y = y0 < y1 ? 1 : -1;
  int error = dx + dy;
  Dot(x0, y0);
  while (x0 != x1 || y0 != y1) {
    const int twice = 2 * error;
    if (twice >= dy) {
      error += dy;
      x0 += step_x;
    }
    if (twice <= dx) {
      error += dx;
      y0 += step_y;
    }
    Dot(x0, y0);
  }
}

std::string PlotCanvas::Row(int row) const {
  const size_t begin = static_cast<size_t>(row) * static_cast<size_t>(columns_);
  size_t end = begin + static_cast<size_t>(columns_);
  while (end > begin && cells_[end - 1] == 0) {
    --end;
  }
  std::string text;
  for (size_t i = begin; i < end; ++i) {
    if (cells_[i] == 0) {
      text += ' ';
    } else if (dots_across_ > 1) {
      text += BrailleCharacter(cells_[i]);
    } else {
      text += '*';
    }
  }
  return text;
}

}  // namespace lasp::client
