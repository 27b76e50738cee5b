// LASP without one or both of what makes it cheap, for the benchmark that says what each is worth.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "worker/device/backend.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::bench {

struct Ablation {
  // One pass makes the output from KV_in, and one the gradients of keys and values from dKV_in.
  // Otherwise as LASP's reference without its fused kernels: a pass over the rank's own tokens as
  // if nothing were before or behind, then a product a head with the state that came, and a pass
  // that decays and adds it. Layers with LRPE, the first one, stay fused: their states turn at the
  // borders of blocks, inside the kernels.
  bool fused = true;
  // The backward has KV_in and the states within the slice from the forward. Otherwise it forms
  // them anew, with the forward's passes and the forward's exchange between ranks, and no layer
  // keeps any.
  bool cached = true;
};

// y[b, t, h, :] += lambda_h^e x[b, t, h, :], with lambda and the columns of a shape's heads, and
// e = t + 1, or tokens - 1 - t where it is counted from the end. Issued on the backend's stream.
using AddDecayed = std::function<void(const worker::AttentionShape& shape, worker::Tensor x,
                                      bool from_end, worker::Tensor y)>;

// All must outlive the result. For layers of decayed attention whose ranks have as many tokens
// each; neither streamed nor packed.
std::unique_ptr<worker::SequenceParallel> CreateAblatedLasp(worker::Backend* backend,
                                                            worker::Communicator* sp,
                                                            const Ablation& ablation,
                                                            AddDecayed add_decayed);

}  // namespace lasp::bench
