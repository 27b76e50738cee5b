// What one rank computed in a step, on disk, so that another implementation can check it.
//
// `rank-<r>.bin` holds raw little-endian arrays, `rank-<r>.json` says what they are:
//   {"step": 1, "rank": 0, "loss": …, "gradient_norm": …, "label_count": …, "sp": …, "dp": …,
//    "arrays": [{"name": "parameter/lm_head.weight", "dtype": "float32", "shape": [256, 64],
//                "offset": 0}, …]}
// with offsets in bytes and dtype float32, float64 or int32. Arrays: tokens and labels
// [sequences, tokens of this rank], all micro-batches of the step one after another;
// parameter/<name> before the update; gradient/<name> reduced over the world, before clipping.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/data/batch.h"
#include "worker/device/backend.h"
#include "worker/model/parameter_layout.h"
#include "worker/parallel/data_parallel.h"
#include "worker/parallel/gather_owned.h"
#include "worker/parallel/process_grid.h"

namespace lasp::worker {

struct StepDump {
  std::string directory;
  int64_t step = 0;
  double loss = 0;
  double gradient_norm = 0;
  int64_t label_count = 0;
  std::vector<Batch> batches;
};

// Creates the directory where it is missing. Every rank writes all parameters of `layout`, whoever
// owns them: all call it. Errors name the file.
absl::Status WriteStepDump(const StepDump& dump, const ProcessGrid& grid,
                           const ParameterLayout& layout, const PlacesOf& places, Backend& backend,
                           DataParallel& parallel);

}  // namespace lasp::worker
