// Which samples a step trains on: a pure function of the seed and the step, so that any step can be
// reached at once and no shape of ranks and no restart changes it.
#pragma once

#include <cstdint>

namespace lasp::worker {

// A bijection of [0, size): a Feistel network over the next even number of bits, walked along its
// cycle until it falls inside (Black & Rogaway, "Ciphers with arbitrary finite domains").
// Immutable.
class Permutation {
 public:
  // size >= 1.
  Permutation(int64_t size, uint64_t key);

  // index in [0, size). Takes O(1) expected time.
  int64_t operator()(int64_t index) const;

 private:
  int64_t size_;
  uint64_t key_;
  int half_bits_;
};

// The order of samples over passes of the data, each pass a permutation of its own. Global index g
// counts samples from the start of the run. Immutable.
class SampleOrder {
 public:
  // sample_count >= 1 samples a pass.
  SampleOrder(int64_t sample_count, int64_t seed);

  // The sample that stands at `global_index` >= 0, in [0, sample_count).
  int64_t SampleAt(int64_t global_index) const;

 private:
  int64_t sample_count_;
  uint64_t seed_;
};

// Where replicas find their samples: replica d takes, in micro-batch m of step s (from 1), the
// global indices (s - 1) * global_batch + m * dp_size * micro_batch + d * micro_batch + i.
int64_t FirstGlobalIndex(int64_t step, int64_t micro_batch_index, int64_t global_batch_size,
                         int64_t micro_batch_size, int64_t dp_rank, int64_t dp_size);

}  // namespace lasp::worker
