// Where what a rank has of the parameters lies in the whole model's: with tensor parallelism the
// rows of its heads and of its share of the MLP, and the columns of the matrices that take them.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/model/model_config.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {

// A matrix of which this rank has some columns.
struct ColumnCut {
  int64_t own = 0;    // where it begins in the order of this rank's layout
  int64_t whole = 0;  // and the whole matrix in that of the whole model
  int64_t rows = 0;
  int64_t columns = 0;  // here
  int64_t stride = 0;   // of the whole matrix
};

// From ParameterLayout(config) to the layout of the same config with one rank. Immutable.
class ParameterShards {
 public:
  explicit ParameterShards(const ModelConfig& config);

  // The elements of `own`, which is in the order of this rank's layout, in the order of the whole
  // model's: as few shares as there are, one a row of a matrix that is cut by columns. Ascending in
  // `own`; `local` as in `own`.
  std::vector<TensorShare> PlacesOf(const TensorShare& own) const;

  // Ascending.
  const std::vector<ColumnCut>& column_cuts() const { return column_cuts_; }

 private:
  // Rows of a matrix that follow one another, `stride` apart in the whole model.
  struct Piece {
    int64_t own = 0;
    int64_t whole = 0;
    int64_t rows = 0;
    int64_t columns = 0;
    int64_t stride = 0;
  };

  std::vector<Piece> pieces_;
  std::vector<ColumnCut> column_cuts_;
};

}  // namespace lasp::worker
