// Softmax cross entropy and its gradient in one pass over a chunk of logits: the whole [tokens,
// vocabulary] matrix need not exist.
#pragma once

#include <cstdint>

namespace lasp::kernels {

inline constexpr int32_t kIgnoredLabel = -1;

// loss = sum over rows with a label of (log sum exp(logits) - logits[label]), in nats
// dlogits = gradient_scale * (softmax(logits) - onehot(label)), zero for rows without a label
template <typename T>
struct CrossEntropyArgs {
  int64_t rows = 0;
  int64_t vocabulary = 0;
  const T* logits = nullptr;        // [rows, vocabulary]
  int64_t logits_stride = 0;        // elements between two rows
  const int32_t* labels = nullptr;  // [rows], in [0, vocabulary) or kIgnoredLabel
  double gradient_scale = 1;        // 1 / the count of valid labels of the whole global batch
  T* gradient = nullptr;            // [rows, vocabulary]; may be `logits`; null: the loss alone
  int64_t gradient_stride = 0;
  double* loss_sum = nullptr;  // added to, row after row, so that the order of sums is fixed
};

namespace cpu {

template <typename T>
void CrossEntropy(const CrossEntropyArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
