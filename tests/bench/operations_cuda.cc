// Times the element-wise and row-wise operations on the GPU at the sizes of a 1B model's step, and
// prints one JSON object: for each the bytes it must move and the share of the copy bandwidth.
//
//   operations_cuda [tokens]
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "kernels/cuda/adamw.h"
#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/gated_rms_norm.h"
#include "kernels/cuda/global_norm.h"
#include "kernels/cuda/glu.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/silu.h"
#include "kernels/cuda/vector_ops.h"
#include "tests/bench/gpu_timer.h"

namespace lasp::bench {
namespace {

using namespace lasp::kernels::cuda;  // NOLINT(google-build-using-namespace): all of it is timed

constexpr int64_t kHidden = 2048;
constexpr int64_t kGlu = 5632;
constexpr int64_t kVocabulary = 64000;
constexpr int64_t kParameters = 1'151'000'576;

class Report {
 public:
  explicit Report(double copy_bandwidth) : copy_bandwidth_(copy_bandwidth) {}

  template <typename Body>
  void Add(const char* name, double bytes, const Body& body, int calls = 10) {
    const double milliseconds = GpuMilliseconds([&] { Check(body(), name); }, calls);
    const double bandwidth = bytes / (milliseconds * 1e-3);
    std::printf(
        "%s\n    {\"operation\": \"%s\", \"ms\": %.4f, \"megabytes\": %.1f, "
        "\"share_of_copy\": %.3f}",
        first_ ? "" : ",", name, milliseconds, bytes * 1e-6, bandwidth / copy_bandwidth_);
    first_ = false;
  }

 private:
  const double copy_bandwidth_;
  bool first_ = true;
};

// Random bf16 values of about unit size: one random block, repeated.
Bf16* RandomBf16(int64_t count) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<Bf16> block(static_cast<size_t>(std::min<int64_t>(count, 1 << 20)));
  for (Bf16& value : block) {
    value = Bf16(normal(generator));
  }
  Bf16* const memory = GpuMemory<Bf16>(count);
  for (int64_t at = 0; at < count; at += static_cast<int64_t>(block.size())) {
    const int64_t size = std::min<int64_t>(count - at, static_cast<int64_t>(block.size()));
    Check(cudaMemcpy(memory + at, block.data(), static_cast<size_t>(size) * sizeof(Bf16),
                     cudaMemcpyHostToDevice),
          "cudaMemcpy");
  }
  return memory;
}

int32_t* Upload(const std::vector<int32_t>& values) {
  auto* const memory = GpuMemory<int32_t>(static_cast<int64_t>(values.size()));
  Check(cudaMemcpy(memory, values.data(), values.size() * sizeof(int32_t), cudaMemcpyHostToDevice),
        "cudaMemcpy");
  return memory;
}

void Rows(int64_t tokens, Report& report) {
  const auto elements = static_cast<double>(tokens * kHidden);
  Bf16* const a = RandomBf16(tokens * kHidden);
  Bf16* const b = RandomBf16(tokens * kHidden);
  Bf16* const sum = GpuMemory<Bf16>(tokens * kHidden);
  Bf16* const out = GpuMemory<Bf16>(tokens * kHidden);
  Bf16* const packed = RandomBf16(tokens * 4 * kHidden);
  Bf16* const packed_gradient = RandomBf16(tokens * 4 * kHidden);
  Bf16* const qk = RandomBf16(tokens * 2 * kHidden);
  auto* const inverse_rms = GpuMemory<float>(tokens);
  report.Add("rms_norm_forward_residual", elements * 8, [&] {
    return RmsNormForward({.rows = tokens,
                           .width = kHidden,
                           .input = a,
                           .addend = b,
                           .sum = sum,
                           .output = out,
                           .inverse_rms = inverse_rms},
                          nullptr);
  });
  report.Add("rms_norm_backward_residual", elements * 8, [&] {
    return RmsNormBackward({.rows = tokens,
                            .width = kHidden,
                            .input = sum,
                            .inverse_rms = inverse_rms,
                            .output_gradient = a,
                            .addend = b,
                            .input_gradient = out},
                           nullptr);
  });
  report.Add("gated_rms_norm_forward", elements * 6, [&] {
    return GatedRmsNormForward({.rows = tokens,
                                .width = kHidden,
                                .input = a,
                                .gate = packed + 3 * kHidden,
                                .gate_stride = 4 * kHidden,
                                .output = out,
                                .inverse_rms = inverse_rms},
                               nullptr);
  });
  report.Add("gated_rms_norm_backward", elements * 10, [&] {
    return GatedRmsNormBackward({.rows = tokens,
                                 .width = kHidden,
                                 .input = a,
                                 .gate = packed + 3 * kHidden,
                                 .gate_stride = 4 * kHidden,
                                 .inverse_rms = inverse_rms,
                                 .output_gradient = b,
                                 .input_gradient = out,
                                 .gate_gradient = packed_gradient + 3 * kHidden,
                                 .gate_gradient_stride = 4 * kHidden},
                                nullptr);
  });
  report.Add("silu_forward_qk", elements * 8, [&] {
    return SiluForward({tokens, 2 * kHidden, packed, 4 * kHidden, qk, 2 * kHidden}, nullptr);
  });
  report.Add("silu_backward_qk_in_place", elements * 12, [&] {
    return SiluBackward({tokens, 2 * kHidden, packed, 4 * kHidden, packed_gradient, 4 * kHidden,
                         packed_gradient, 4 * kHidden},
                        nullptr);
  });
  for (Bf16* memory : {a, b, sum, out, packed, packed_gradient, qk}) {
    Check(cudaFree(memory), "cudaFree");
  }
}

void GatedProduct(int64_t tokens, Report& report) {
  const auto elements = static_cast<double>(tokens * kGlu);
  Bf16* const packed = RandomBf16(tokens * 2 * kGlu);
  Bf16* const y = RandomBf16(tokens * kGlu);
  lasp::kernels::GluBackwardArgs<Bf16> backward = {tokens,        kGlu,          packed,  2 * kGlu,
                                                   packed + kGlu, 2 * kGlu,      y,       packed,
                                                   2 * kGlu,      packed + kGlu, 2 * kGlu};
  report.Add("glu_forward", elements * 6, [&] {
    return GluForward({tokens, kGlu, packed, 2 * kGlu, packed + kGlu, 2 * kGlu, y}, nullptr);
  });
  report.Add("glu_backward_in_place", elements * 10,
             [&] { return GluBackward(backward, nullptr); });
  backward.product = y;
  report.Add("glu_backward_with_product", elements * 12,
             [&] { return GluBackward(backward, nullptr); });
  Check(cudaFree(packed), "cudaFree");
  Check(cudaFree(y), "cudaFree");
}

// Uniform ids, and ids with the frequencies of words: the n-th most frequent in 1 / n.
void Embedding(int64_t tokens, Report& report) {
  std::mt19937 generator(1);
  std::vector<double> weights(kVocabulary);
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i] = 1.0 / static_cast<double>(i + 1);
  }
  std::discrete_distribution<int32_t> word(weights.begin(), weights.end());
  std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(kVocabulary) - 1);
  std::vector<int32_t> words(static_cast<size_t>(tokens));
  std::vector<int32_t> uniform(words.size());
  for (size_t i = 0; i < words.size(); ++i) {
    words[i] = word(generator);
    uniform[i] = any(generator);
  }
  Bf16* const table = RandomBf16(kVocabulary * kHidden);
  Bf16* const x = RandomBf16(tokens * kHidden);
  auto* const gradient = GpuMemory<float>(kVocabulary * kHidden);
  Check(cudaMemset(gradient, 0, kVocabulary * kHidden * sizeof(float)), "cudaMemset");
  auto* const workspace = GpuMemory<char>(EmbeddingBackwardWorkspaceBytes(tokens, kHidden));
  for (const bool as_words : {false, true}) {
    const std::vector<int32_t>& ids = as_words ? words : uniform;
    const int32_t* const ids_d = Upload(ids);
    std::vector<bool> seen(kVocabulary);
    int64_t distinct = 0;
    for (const int32_t id : ids) {
      distinct += seen[static_cast<size_t>(id)] ? 0 : 1;
      seen[static_cast<size_t>(id)] = true;
    }
    const auto elements = static_cast<double>(tokens * kHidden);
    const auto rows = static_cast<double>(distinct * kHidden);
    report.Add(
        as_words ? "embedding_forward_words" : "embedding_forward_uniform", elements * 2 + rows * 2,
        [&] { return EmbeddingForward({tokens, kHidden, 45.25, ids_d, table, x}, nullptr); });
    report.Add(as_words ? "embedding_backward_words" : "embedding_backward_uniform",
               elements * 2 + rows * 8, [&] {
                 return EmbeddingBackward({tokens, kHidden, 45.25, ids_d, x, gradient}, kVocabulary,
                                          workspace, nullptr);
               });
  }
  Check(cudaFree(table), "cudaFree");
  Check(cudaFree(x), "cudaFree");
  Check(cudaFree(gradient), "cudaFree");
}

void Loss(int64_t rows, Report& report) {
  std::vector<int32_t> labels(static_cast<size_t>(rows));
  for (size_t i = 0; i < labels.size(); ++i) {
    labels[i] = static_cast<int32_t>(i * 7919 % kVocabulary);
  }
  const int32_t* const labels_d = Upload(labels);
  Bf16* const logits = RandomBf16(rows * kVocabulary);
  Bf16* const gradient = GpuMemory<Bf16>(rows * kVocabulary);
  auto* const loss = GpuMemory<double>(1);
  auto* const workspace = GpuMemory<char>(CrossEntropyWorkspaceBytes(rows));
  lasp::kernels::CrossEntropyArgs<Bf16> args = {.rows = rows,
                                                .vocabulary = kVocabulary,
                                                .logits = logits,
                                                .logits_stride = kVocabulary,
                                                .labels = labels_d,
                                                .gradient_scale = 1e-3,
                                                .gradient_stride = kVocabulary,
                                                .loss_sum = loss};
  const auto elements = static_cast<double>(rows * kVocabulary);
  report.Add("cross_entropy_loss_alone", elements * 2,
             [&] { return CrossEntropy(args, workspace, nullptr); });
  args.gradient = gradient;
  report.Add("cross_entropy_apart", elements * 4,
             [&] { return CrossEntropy(args, workspace, nullptr); });
  args.gradient = logits;
  report.Add("cross_entropy_in_place", elements * 4,
             [&] { return CrossEntropy(args, workspace, nullptr); });
  Check(cudaFree(logits), "cudaFree");
  Check(cudaFree(gradient), "cudaFree");
}

void Optimizer(Report& report) {
  const auto count = static_cast<double>(kParameters);
  float* buffers[4];
  for (float*& buffer : buffers) {
    buffer = GpuMemory<float>(kParameters);
    Check(Fill<float>(kParameters, 0.01, buffer, nullptr), "Fill");
  }
  Bf16* const copy = GpuMemory<Bf16>(kParameters);
  auto* const sum = GpuMemory<double>(1);
  auto* const workspace = GpuMemory<char>(SumOfSquaresWorkspaceBytes());
  auto* const control = GpuMemory<lasp::kernels::UpdateControl>(1);
  const lasp::kernels::UpdateControl initial = {.learning_rate = 1e-4};
  Check(cudaMemcpy(control, &initial, sizeof(initial), cudaMemcpyHostToDevice), "cudaMemcpy");
  const AdamWTensor<float> tensor = {.count = kParameters,
                                     .parameter = buffers[0],
                                     .gradient = buffers[1],
                                     .first_moment = buffers[2],
                                     .second_moment = buffers[3],
                                     .copy = copy,
                                     .weight_decay = 0.1F};
  report.Add(
      "fill_fp32", count * 4, [&] { return Fill<float>(kParameters, 0.01, buffers[1], nullptr); },
      3);
  report.Add(
      "sum_of_squares", count * 4,
      [&] { return SumOfSquares({kParameters, buffers[1], sum}, workspace, nullptr); }, 3);
  report.Add("judge_update", 0, [&] {
    return JudgeUpdate(
        {.max_gradient_norm = 1, .loss = sum, .sum_of_squares = sum, .control = control}, nullptr);
  });
  report.Add(
      "adamw", count * 30,
      [&] {
        return AdamW<float>({.tensors = &tensor, .tensor_count = 1, .control = control}, nullptr);
      },
      3);
  report.Add(
      "convert_fp32_to_bf16", count * 6,
      [&] { return Convert<float, Bf16>(kParameters, buffers[0], copy, nullptr); }, 3);
  report.Add(
      "axpy_fp32", count * 12,
      [&] { return Axpy<float>(kParameters, 1e-3, buffers[0], buffers[1], nullptr); }, 3);
}

}  // namespace
}  // namespace lasp::bench

int main(int argc, char** argv) {
  const int64_t tokens = argc > 1 ? std::strtoll(argv[1], nullptr, 10) : 32768;
  if (tokens < 4) {
    std::fprintf(stderr, "usage: operations_cuda [tokens]\n");
    return 2;
  }
  const double bandwidth = lasp::bench::CopyBandwidth();
  std::printf("{\"tokens\": %lld, \"copy_gigabytes_a_second\": %.1f,\n  \"operations\": [",
              static_cast<long long>(tokens),  // NOLINT(google-runtime-int): what printf knows
              bandwidth * 1e-9);
  lasp::bench::Report report(bandwidth);
  lasp::bench::Rows(tokens, report);
  lasp::bench::GatedProduct(tokens, report);
  lasp::bench::Embedding(tokens, report);
  lasp::bench::Loss(tokens / 4, report);
  lasp::bench::Optimizer(report);
  std::printf("\n  ]}\n");
  return 0;
}
