// Times softmax attention on the GPU, forward and backward, as one rank computes it, and prints one
// JSON object: milliseconds, and the products of the queries and keys that see each other in
// TFLOP/s (4 d operations for each of them forward, 10 d backward).
//
//   softmax_attention_cuda
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cuda/rotary_positions.h"
#include "kernels/cuda/softmax_attention.h"
#include "tests/bench/gpu_timer.h"

namespace lasp::bench {
namespace {

using kernels::HeadsView;
using kernels::SoftmaxAttentionShape;
using kernels::cuda::Bf16;
using kernels::cuda::SoftmaxAttention;

void CheckCudnn(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS) {
    std::fprintf(stderr, "%s: %s\n", what,
                 kernels::cuda::LoadCudnn().library->get_error_string(status));
    std::exit(1);
  }
}

// The same million values again and again: drawing them would take longer than what is timed.
Bf16* RandomBf16(int64_t count) {
  static const std::vector<Bf16> values = [] {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    std::vector<Bf16> drawn((1 << 20) - 1);
    std::generate(drawn.begin(), drawn.end(), [&] { return Bf16(normal(generator)); });
    return drawn;
  }();
  Bf16* const memory = GpuMemory<Bf16>(count);
  for (int64_t begin = 0; begin < count; begin += std::ssize(values)) {
    const auto some = static_cast<size_t>(std::min(count - begin, std::ssize(values)));
    Check(cudaMemcpy(memory + begin, values.data(), some * sizeof(Bf16), cudaMemcpyHostToDevice),
          "cudaMemcpy");
  }
  return memory;
}

// Of all pairs of a head's queries and keys, those that see each other.
double Seen(const SoftmaxAttentionShape& shape) {
  double seen = 0;
  for (int64_t query = 0; query < shape.queries; ++query) {
    seen += static_cast<double>(std::min(shape.offset + query + 1, shape.keys));
  }
  return seen;
}

void Time(SoftmaxAttention* attention, const SoftmaxAttentionShape& shape, bool first) {
  const auto rows = [&](int64_t heads, int64_t tokens) {
    return HeadsView<Bf16>{RandomBf16(shape.batch * tokens * heads * shape.head_size),
                           tokens * heads * shape.head_size, heads * shape.head_size,
                           shape.head_size};
  };
  const HeadsView<Bf16> q = rows(shape.heads, shape.queries);
  const HeadsView<Bf16> k = rows(shape.kv_heads, shape.keys);
  const HeadsView<Bf16> v = rows(shape.kv_heads, shape.keys);
  const HeadsView<Bf16> o = rows(shape.heads, shape.queries);
  const HeadsView<Bf16> d_o = rows(shape.heads, shape.queries);
  const HeadsView<Bf16> d_q = rows(shape.heads, shape.queries);
  const HeadsView<Bf16> d_k = rows(shape.kv_heads, shape.keys);
  const HeadsView<Bf16> d_v = rows(shape.kv_heads, shape.keys);
  auto* const log_sums = GpuMemory<float>(shape.batch * shape.heads * shape.queries);
  int64_t bytes = 0;
  CheckCudnn(attention->WorkspaceBytes(shape, &bytes), "planning");
  const kernels::cuda::SoftmaxWorkspace workspace{GpuMemory<char>(bytes), bytes};
  const double forward = GpuMilliseconds([&] {
    CheckCudnn(attention->Output({shape, q, k, v, o, log_sums}, workspace, nullptr), "forward");
  });
  const double backward = GpuMilliseconds([&] {
    CheckCudnn(
        attention->Gradients({shape, q, k, v, o, log_sums, d_o, d_q, d_k, d_v}, workspace, nullptr),
        "backward");
  });
  const double turn = GpuMilliseconds([&] {
    Check(kernels::cuda::TurnByPositions({shape.batch, shape.queries, shape.heads, shape.head_size,
                                          0, 10000, false, d_q.data, d_q.token_stride},
                                         nullptr),
          "turning");
  });
  const double products =
      static_cast<double>(shape.batch * shape.heads * shape.head_size) * Seen(shape);
  std::printf(
      "%s\n    {\"batch\": %lld, \"queries\": %lld, \"keys\": %lld, \"heads\": %lld, "
      "\"kv_heads\": %lld, \"size\": %lld, \"forward_ms\": %.3f, \"forward_tflops\": %.0f, "
      "\"backward_ms\": %.3f, \"backward_tflops\": %.0f, \"turn_ms\": %.4f, "
      "\"workspace_mib\": %.1f}",
      first ? "" : ",", static_cast<long long>(shape.batch), static_cast<long long>(shape.queries),
      static_cast<long long>(shape.keys), static_cast<long long>(shape.heads),
      static_cast<long long>(shape.kv_heads), static_cast<long long>(shape.head_size), forward,
      4e-9 * products / forward, backward, 10e-9 * products / backward, turn,
      static_cast<double>(bytes) / (1 << 20));
  for (void* const memory :
       {static_cast<void*>(q.data), static_cast<void*>(k.data), static_cast<void*>(v.data),
        static_cast<void*>(o.data), static_cast<void*>(d_o.data), static_cast<void*>(d_q.data),
        static_cast<void*>(d_k.data), static_cast<void*>(d_v.data), static_cast<void*>(log_sums),
        workspace.data}) {
    Check(cudaFree(memory), "cudaFree");
  }
}

int Run() {
  const kernels::cuda::CudnnLoading& loading = kernels::cuda::LoadCudnn();
  if (loading.library == nullptr) {
    std::fprintf(stderr, "%s\n", loading.failure.c_str());
    return 1;
  }
  std::unique_ptr<SoftmaxAttention> attention;
  CheckCudnn(SoftmaxAttention::Create(loading.library, 0, "", &attention), "starting cuDNN");
  std::printf("{\n  \"cudnn\": %zu,\n  \"results\": [", loading.library->get_version());
  bool first = true;
  // One rank's of 8K and 32K tokens, also with shared heads; the last of four ranks' that gather
  // keys; and the size below which the backward is deterministic.
  for (const SoftmaxAttentionShape& shape :
       {SoftmaxAttentionShape{1, 8192, 8192, 16, 16, 128, 0},
        SoftmaxAttentionShape{1, 32768, 32768, 16, 16, 128, 0},
        SoftmaxAttentionShape{1, 32768, 32768, 16, 4, 128, 0},
        SoftmaxAttentionShape{1, 32768, 32768, 32, 32, 64, 0},
        SoftmaxAttentionShape{1, 8192, 32768, 16, 4, 128, 24576},
        SoftmaxAttentionShape{1, 8192, 8192, 16, 4, 128, 8192},
        SoftmaxAttentionShape{1, 2880, 2880, 16, 16, 128, 0},
        SoftmaxAttentionShape{1, 2944, 2944, 16, 16, 128, 0}}) {
    Time(attention.get(), shape, first);
    first = false;
  }
  std::printf("\n  ]\n}\n");
  return 0;
}

}  // namespace
}  // namespace lasp::bench

int main() { return lasp::bench::Run(); }
