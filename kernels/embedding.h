// Rows of the embedding table, scaled: x_n = scale * E[token_n].
#pragma once

#include <cstdint>

namespace lasp::kernels {

template <typename T>
struct EmbeddingForwardArgs {
  int64_t tokens = 0;
  int64_t hidden_size = 0;
  double scale = 1;              // sqrt(hidden_size) in TransNormer
  const int32_t* ids = nullptr;  // [tokens], each in [0, vocabulary)
  const T* embedding = nullptr;  // [vocabulary, hidden_size]
  T* output = nullptr;           // [tokens, hidden_size]
};

// dE[token_n] += scale * dx_n, added in the order of the tokens whatever the thread count.
// G is the type of the table's gradient, where it is finer than T.
template <typename T, typename G = T>
struct EmbeddingBackwardArgs {
  int64_t tokens = 0;
  int64_t hidden_size = 0;
  double scale = 1;
  const int32_t* ids = nullptr;        // [tokens]
  const T* output_gradient = nullptr;  // [tokens, hidden_size]
  G* embedding_gradient = nullptr;     // [vocabulary, hidden_size], added to
};

namespace cpu {

template <typename T>
void EmbeddingForward(const EmbeddingForwardArgs<T>& args);

template <typename T>
void EmbeddingBackward(const EmbeddingBackwardArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
