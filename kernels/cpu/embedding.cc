#include "kernels/embedding.h"

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {

template <typename T>
void EmbeddingForward(const EmbeddingForwardArgs<T>& args) {
  const int64_t width = args.hidden_size;
  const T scale = static_cast<T>(args.scale);
  ParallelRanges(args.tokens, width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t n = begin; n < end; ++n) {
        const T* const row = args.embedding + args.ids[n] * width;
        T* const output = args.output + n * width;
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) {
          output[c] = scale * row[c];
        }
      }
    });
  });
}

template <typename T>
void EmbeddingBackward(const EmbeddingBackwardArgs<T>& args) {
  const int64_t width = args.hidden_size;
  const T scale = static_cast<T>(args.scale);
  // Split by columns: tokens share rows of the table, never columns of a thread.
  ParallelRanges(width, args.tokens, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t n = 0; n < args.tokens; ++n) {
        const T* const gradient = args.output_gradient + n * width;
        T* const row = args.embedding_gradient + args.ids[n] * width;
#pragma omp simd
        for (int64_t c = begin; c < end; ++c) {
          row[c] += scale * gradient[c];
        }
      }
    });
  });
}

template void EmbeddingForward<float>(const EmbeddingForwardArgs<float>&);
template void EmbeddingForward<double>(const EmbeddingForwardArgs<double>&);
template void EmbeddingBackward<float>(const EmbeddingBackwardArgs<float>&);
template void EmbeddingBackward<double>(const EmbeddingBackwardArgs<double>&);

}  // namespace lasp::kernels::cpu
