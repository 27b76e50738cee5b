// A micro-batch from its sequences' first macro-chunk to the last and, for training, back.
//
// A layer of a macro-chunk depends on the layer before it in the same macro-chunk and on its own
// state behind the macro-chunk before. So forward keeps each layer's KV_in and nothing else, and
// backward computes one macro-chunk after the other anew from these, with the gradient of the state
// that the macro-chunk behind it has left. That is exact, in the memory of one macro-chunk.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/backend.h"
#include "worker/model/transnormer.h"
#include "worker/parallel/carried_states.h"

namespace lasp::worker {

class SequenceSweep {
 public:
  // All outlive this. `carried` is null where sequences do not go by in macro-chunks: then there is
  // one.
  SequenceSweep(Backend* backend, TransNormer* model, CarriedStates* carried, int64_t chunks)
      : backend_(*backend), model_(*model), carried_(carried), chunks_(chunks) {}

  // Gives this rank's slice of a macro-chunk; what the call before gave need not stay. Training
  // takes macro-chunks in the order of MacroChunks::ChunkOfPass.
  using Fetch = std::function<absl::StatusOr<TokenBatch>(int64_t chunk)>;

  // As TransNormer::ForwardForTraining and Backward; `last_micro_batch`: no more micro-batches
  // follow.
  absl::Status Train(const Fetch& fetch, double gradient_scale, Tensor loss_sum, bool adds,
                     bool last_micro_batch);
  // Adds the summed loss alone.
  absl::Status Evaluate(const Fetch& fetch, Tensor loss_sum);

 private:
  absl::StatusOr<TokenBatch> Next(const Fetch& fetch, int64_t chunk);

  Backend& backend_;
  TransNormer& model_;
  CarriedStates* const carried_;
  const int64_t chunks_;
};

}  // namespace lasp::worker
