// One process playing all ranks of a sequence-parallel group: each rank's pieces of linear
// attention, chained by hand in the order in which the ranks exchange states.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/linear_attention.h"
#include "kernels/reference/linear_attention.h"

namespace lasp::kernels {

// Arrays as in reference::LinearAttention, of one rank's slice.
template <typename T>
struct RankResult {
  int64_t start = 0;   // first token
  int64_t tokens = 0;  // 0 is not used
  std::vector<T> output;
  std::vector<T> q;
  std::vector<T> k;
  std::vector<T> v;
};

template <typename T>
struct GroupResult {
  std::vector<RankResult<T>> ranks;
  std::vector<T> theta;  // summed over the ranks; empty without LRPE
};

// Runs forward and backward over slices of the given lengths. No rank is told its position.
// document_starts: tokens at which documents start, counted through the batch, in any order.
template <typename T>
GroupResult<T> RunRanks(const reference::LinearAttention& x, const std::vector<double>& d_o,
                        const std::vector<int64_t>& lengths,
                        const std::vector<int64_t>& document_starts = {});

// The tokens [start, start + tokens) of an array [batch, tokens, heads, width].
std::vector<double> Slice(const std::vector<double>& values, const reference::LinearAttention& x,
                          int64_t width, int64_t start, int64_t tokens);

}  // namespace lasp::kernels
