// What a model costs to train, and what a GPU could do: their ratio is the model FLOP utilisation.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"
#include "lasp/v1/training_spec.pb.h"

namespace lasp::worker {

// Floating-point operations of one training token, forward and backward, that the model as
// mathematics asks for: matrix products, the recurrence of the attention states, and in layers of
// softmax attention what a token of a sequence of `sequence_length` sees on average; without what
// an implementation adds (products within blocks, recomputation). `model` with its defaults written
// out.
double ModelFlopsPerToken(const lasp::v1::ModelSpec& model, int64_t sequence_length);

// Peak of dense bf16 products of a GPU by the name its driver gives it, from NVIDIA's data sheets;
// 0 for one we do not know.
double PeakFlopsPerSecond(absl::string_view gpu_name);

}  // namespace lasp::worker
