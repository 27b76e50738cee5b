#include "worker/model/parameter_shards.h"

#include <algorithm>

#include "worker/model/parameter_layout.h"

namespace lasp::worker {

ParameterShards::ParameterShards(const ModelConfig& config) {
  ModelConfig alone = config;
  alone.tensor_ranks = 1;
  alone.tensor_rank = 0;
  const std::vector<Parameter> wholes = ParameterLayout(alone).parameters();
  const std::vector<Parameter> owns = ParameterLayout(config).parameters();
  for (size_t i = 0; i < owns.size(); ++i) {
    const Parameter& own = owns[i];
    const Parameter& whole = wholes[i];
    const int64_t column = own.columns < whole.columns ? own.columns * config.tensor_rank : 0;
    int64_t own_row = 0;
    int64_t whole_row = 0;
    for (size_t matrix = 0; matrix < own.stacked.size(); ++matrix) {
      const int64_t rows = own.stacked[matrix];
      // Cut by rows, by columns, or not at all.
      const int64_t cut = rows < whole.stacked[matrix] ? rows * config.tensor_rank : 0;
      Piece piece{.own = own.offset + own_row * own.columns,
                  .whole = whole.offset + (whole_row + cut) * whole.columns + column,
                  .rows = rows,
                  .columns = own.columns,
                  .stride = whole.columns};
      if (piece.columns == piece.stride) {
        piece = {piece.own, piece.whole, 1, rows * own.columns, rows * own.columns};
      } else {
        column_cuts_.push_back({.own = piece.own,
                                .whole = piece.whole - column,
                                .rows = rows,
                                .columns = piece.columns,
                                .stride = piece.stride});
      }
      pieces_.push_back(piece);
      own_row += rows;
      whole_row += whole.stacked[matrix];
    }
  }
}

std::vector<TensorShare> ParameterShards::PlacesOf(const TensorShare& own) const {
  std::vector<TensorShare> places;
  const int64_t own_end = own.begin + own.count;
  for (const Piece& piece : pieces_) {
    const int64_t first = std::max<int64_t>(0, (own.begin - piece.own) / piece.columns);
    for (int64_t row = first; row < piece.rows; ++row) {
      const int64_t row_begin = piece.own + row * piece.columns;
      const int64_t begin = std::max(own.begin, row_begin);
      const int64_t end = std::min(own_end, row_begin + piece.columns);
      if (row_begin >= own_end) {
        break;
      }
      if (begin >= end) {
        continue;
      }
      const int64_t place = piece.whole + row * piece.stride + begin - row_begin;
      const int64_t local = own.local + begin - own.begin;
      TensorShare* const last = places.empty() ? nullptr : &places.back();
      if (last != nullptr && last->begin + last->count == place &&
          last->local + last->count == local) {
        last->count += end - begin;
      } else {
        places.push_back({.begin = place, .count = end - begin, .local = local});
      }
    }
  }
  return places;
}

}  // namespace lasp::worker
