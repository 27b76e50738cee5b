#include "worker/data/sample_order.h"

#include <bit>

namespace lasp::worker {
namespace {

// The finalizer of SplitMix64 (Steele, Lea & Flood 2014): a bijection that spreads every input bit
// over all output bits.
uint64_t Mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  x ^= x >> 31;
  return x;
}

constexpr uint64_t kGoldenRatio = 0x9e3779b97f4a7c15u;
constexpr int kRounds = 6;

}  // namespace

Permutation::Permutation(int64_t size, uint64_t key)
    : size_(size),
      key_(key),
      half_bits_(static_cast<int>(std::bit_width(static_cast<uint64_t>(size - 1)) + 1) / 2) {}

int64_t Permutation::operator()(int64_t index) const {
  if (half_bits_ == 0) {
    return 0;
  }
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  auto value = static_cast<uint64_t>(index);
  // The network permutes [0, 4^half_bits_), less than four times `size_`: fewer than four walks are
  // expected.
  do {
    uint64_t left = value >> half_bits_;
    uint64_t right = value & mask;
    for (uint64_t round = 1; round <= kRounds; ++round) {
      const uint64_t mixed = Mix(right + Mix(key_ + round * kGoldenRatio));
      const uint64_t next = left ^ (mixed & mask);
      left = right;
      right = next;
    }
    value = left << half_bits_ | right;
  } while (value >= static_cast<uint64_t>(size_));
  return static_cast<int64_t>(value);
}

SampleOrder::SampleOrder(int64_t sample_count, int64_t seed)
    : sample_count_(sample_count), seed_(static_cast<uint64_t>(seed)) {}

int64_t SampleOrder::SampleAt(int64_t global_index) const {
  const auto pass = static_cast<uint64_t>(global_index / sample_count_);
  const uint64_t key = Mix(Mix(seed_ + kGoldenRatio) + pass * kGoldenRatio);
  return Permutation(sample_count_, key)(global_index % sample_count_);
}

int64_t FirstGlobalIndex(int64_t step, int64_t micro_batch_index, int64_t global_batch_size,
                         int64_t micro_batch_size, int64_t dp_rank, int64_t dp_size) {
  return (step - 1) * global_batch_size + micro_batch_index * dp_size * micro_batch_size +
         dp_rank * micro_batch_size;
}

}  // namespace lasp::worker
