// What each sequence-parallel method sends for a layer of attention: its formula, to hold counters
// to.
#pragma once

#include <cstdint>

#include "lasp/v1/training_spec.pb.h"
#include "worker/device/backend.h"

namespace lasp::worker {

// B H d_k d_v, in fp32; of a normalised layer B H d_k (d_v + 1). With LRPE d_k is twice the head's.
inline int64_t StateBytes(const AttentionShape& shape) {
  const int64_t columns = shape.head_size + (shape.normalised ? 1 : 0);
  return shape.batch * shape.heads * shape.state_rows() * columns * 4;
}

// Bytes that rank `place` of `ranks` sends in the forward pass, or in the backward pass. `shape`
// has a rank's tokens.
inline int64_t SentBytesFormula(lasp::v1::SequenceParallelSpec::Method method,
                                const AttentionShape& shape, int ranks, int place, bool backward) {
  using Spec = lasp::v1::SequenceParallelSpec;
  // One tensor of a rank's tokens: B C D, in fp32.
  const int64_t slice = shape.batch * shape.tokens * shape.heads * shape.head_size * 4;
  const bool last_of_flow = place == (backward ? 0 : ranks - 1);
  switch (method) {
    case Spec::METHOD_LASP2:
      return (ranks - 1) * StateBytes(shape);
    case Spec::METHOD_ULYSSES:
      // q, k, v and o, or their gradients.
      return 4 * slice * (ranks - 1) / ranks;
    case Spec::METHOD_RING_ATTENTION: {
      // Its own keys and values and those of all before it, but for the last rank; and backward,
      // the gradients of all before it. The busiest rank sends 2 B N D (P - 1) / P in the forward.
      const int64_t onward = place == ranks - 1 ? 0 : 2 * slice * (place + 1);
      return onward + (backward ? 2 * slice * place : 0);
    }
    default:
      return last_of_flow ? 0 : StateBytes(shape);
  }
}

// How many messages all ranks together send for a layer, in both passes; `scan_blocks` of
// ALL_SCAN's states.
inline int64_t MessagesFormula(lasp::v1::SequenceParallelSpec::Method method,
                               const AttentionShape& shape, int ranks, int64_t scan_blocks) {
  using Spec = lasp::v1::SequenceParallelSpec;
  const int64_t pairs = int64_t{ranks} * (ranks - 1);
  switch (method) {
    case Spec::METHOD_LASP2:
      return 2 * pairs;
    case Spec::METHOD_ALL_SCAN:
      return scan_blocks * 2 * (ranks - 1);
    case Spec::METHOD_ULYSSES:
      return 2 * pairs * 4 * shape.batch;
    case Spec::METHOD_RING_ATTENTION:
      return pairs / 2 * 3;
    default:
      return int64_t{2} * (ranks - 1);
  }
}

}  // namespace lasp::worker
