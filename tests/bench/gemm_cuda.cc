// Times every matrix product of a training step of TransNormerLLM-1B, each by the fastest algorithm
// that cuBLASLt offers, and prints one JSON object. The sum is the floor under the time of a step.
//
//   gemm_cuda [tokens] [candidates] [multiprocessors]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/gemm.h"
#include "tests/bench/gpu_timer.h"

namespace lasp::bench {
namespace {

using lasp::kernels::cuda::Bf16;
using lasp::kernels::cuda::GemmAlgorithm;
using lasp::kernels::cuda::GemmShape;

constexpr int64_t kWorkspaceBytes = 32 << 20;
constexpr int kRounds = 5;

// A Linear layer: y [tokens, outputs] = x [tokens, inputs] W^T.
struct Layer {
  const char* name;
  int64_t outputs;
  int64_t inputs;
  int count;   // in the model
  int chunks;  // of the tokens
};

constexpr Layer kLayers[] = {{"qkvu", 8192, 2048, 16, 1},
                             {"out_proj", 2048, 2048, 16, 1},
                             {"l1_l2", 11264, 2048, 16, 1},
                             {"l3", 2048, 5632, 16, 1},
                             {"head", 64000, 2048, 1, 4}};

struct Product {
  const char* name;
  GemmShape shape;
};

// The three products of a layer over `tokens`: forward, the input's gradient, the weight's
// gradient.
std::vector<Product> ProductsOf(const Layer& layer, int64_t tokens, int32_t multiprocessors) {
  const int64_t n = layer.outputs;
  const int64_t k = layer.inputs;
  return {{"forward",
           {.transpose_b = true,
            .m = tokens,
            .n = n,
            .k = k,
            .a_stride = k,
            .b_stride = k,
            .c_stride = n,
            .multiprocessors = multiprocessors}},
          {"input_gradient",
           {.m = tokens,
            .n = k,
            .k = n,
            .a_stride = n,
            .b_stride = k,
            .c_stride = k,
            .multiprocessors = multiprocessors}},
          {"weight_gradient",
           {.transpose_a = true,
            .m = n,
            .n = k,
            .k = tokens,
            .a_stride = n,
            .b_stride = k,
            .c_stride = k,
            .fp32_output = true,
            .adds = true,
            .multiprocessors = multiprocessors}}};
}

class Bench {
 public:
  Bench(int64_t tokens, int candidates)
      : candidates_(candidates), workspace_(GpuMemory<char>(kWorkspaceBytes)) {
    if (cublasLtCreate(&handle_) != CUBLAS_STATUS_SUCCESS) {
      std::fprintf(stderr, "cublasLtCreate failed\n");
      std::exit(1);
    }
    // The largest operand is a chunk of logits, or the gated projection.
    const int64_t most = std::max(tokens / 4 * 64000, tokens * 11264);
    a_ = Random(most);
    b_ = Random(most);
    c_ = GpuMemory<char>(std::max<int64_t>(most * 2, int64_t{64000} * 2048 * 4));
    Check(cudaMemset(c_, 0, 4096), "cudaMemset");
  }

  // Milliseconds by the fastest algorithm; which one, and all that were offered, go to *text.
  double Best(const Product& product, std::string* text) {
    std::vector<GemmAlgorithm> algorithms(static_cast<size_t>(candidates_));
    int count = 0;
    if (GemmCandidates(handle_, product.shape, kWorkspaceBytes, candidates_, algorithms.data(),
                       &count) != CUBLAS_STATUS_SUCCESS) {
      std::fprintf(stderr, "no algorithm for a product\n");
      std::exit(1);
    }
    // They take turns, so that a GPU that slows down as it warms favours none.
    std::vector<double> totals(static_cast<size_t>(count));
    for (int round = 0; round < kRounds; ++round) {
      for (size_t i = 0; i < totals.size(); ++i) {
        totals[i] += Time(product.shape, algorithms[i], 2, 1);
      }
    }
    const auto fastest = std::min_element(totals.begin(), totals.end());
    const auto best_index = static_cast<size_t>(fastest - totals.begin());
    const double best = Time(product.shape, algorithms[best_index], 5, 7);
    const double flops = 2.0 * static_cast<double>(product.shape.m) *
                         static_cast<double>(product.shape.n) *
                         static_cast<double>(product.shape.k);
    char line[100];
    std::snprintf(line, sizeof(line),
                  "\"ms\": %.4f, \"teraflops\": %.1f, \"algorithm\": %zu, \"offered_ms\": [", best,
                  flops / best * 1e-9, best_index);
    *text = line;
    for (size_t i = 0; i < totals.size(); ++i) {
      std::snprintf(line, sizeof(line), "%s%.4f", i == 0 ? "" : ", ", totals[i] / kRounds);
      *text += line;
    }
    *text += "]";
    return best;
  }

 private:
  double Time(const GemmShape& shape, const GemmAlgorithm& algorithm, int calls, int rounds) {
    return GpuMilliseconds(
        [&] {
          if (Gemm(handle_, shape, {.a = a_, .b = b_, .beta = shape.adds ? 1.0F : 0.0F, .c = c_},
                   algorithm, workspace_, nullptr) != CUBLAS_STATUS_SUCCESS) {
            std::fprintf(stderr, "a product failed\n");
            std::exit(1);
          }
        },
        calls, rounds);
  }

  static Bf16* Random(int64_t count) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    std::vector<Bf16> block(1 << 22);
    for (Bf16& value : block) {
      value = Bf16(normal(generator));
    }
    Bf16* const memory = GpuMemory<Bf16>(count);
    for (int64_t at = 0; at < count; at += static_cast<int64_t>(block.size())) {
      const auto size =
          static_cast<size_t>(std::min<int64_t>(count - at, static_cast<int64_t>(block.size())));
      Check(cudaMemcpy(memory + at, block.data(), size * sizeof(Bf16), cudaMemcpyHostToDevice),
            "cudaMemcpy");
    }
    return memory;
  }

  const int candidates_;
  cublasLtHandle_t handle_ = nullptr;
  Bf16* a_ = nullptr;
  Bf16* b_ = nullptr;
  void* c_ = nullptr;
  char* const workspace_;
};

}  // namespace
}  // namespace lasp::bench

int main(int argc, char** argv) {
  const auto argument = [&](int index, int64_t otherwise) {
    return argc > index ? std::strtoll(argv[index], nullptr, 10) : otherwise;
  };
  const int64_t tokens = argument(1, 32768);
  const auto candidates = static_cast<int>(argument(2, 16));
  const auto multiprocessors = static_cast<int32_t>(argument(3, 0));
  if (tokens < 4 || candidates < 1 || multiprocessors < 0) {
    std::fprintf(stderr, "usage: gemm_cuda [tokens] [candidates] [multiprocessors]\n");
    return 2;
  }
  lasp::bench::Bench bench(tokens, candidates);
  std::printf("{\"tokens\": %lld, \"cublaslt\": %zu, \"multiprocessors\": %d,\n  \"products\": [",
              static_cast<long long>(tokens),  // NOLINT(google-runtime-int): what printf knows
              cublasLtGetVersion(), multiprocessors);
  double total = 0;
  double flops = 0;
  const char* separator = "";
  for (const lasp::bench::Layer& layer : lasp::bench::kLayers) {
    const int64_t rows = tokens / layer.chunks;
    for (const auto& product : ProductsOf(layer, rows, multiprocessors)) {
      std::string text;
      const double milliseconds = bench.Best(product, &text);
      std::printf("%s\n    {\"layer\": \"%s\", \"product\": \"%s\", %s}", separator, layer.name,
                  product.name, text.c_str());
      separator = ",";
      total += milliseconds * layer.count * layer.chunks;
      flops += 2.0 * static_cast<double>(rows * layer.outputs * layer.inputs) * layer.count *
               layer.chunks;
    }
  }
  std::printf("\n  ],\n  \"step_ms\": %.2f, \"teraflops\": %.1f, \"tokens_a_second\": %.0f}\n",
              total, flops / total * 1e-9, static_cast<double>(tokens) / total * 1e3);
  return 0;
}
