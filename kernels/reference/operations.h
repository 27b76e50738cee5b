// The element-wise and row-wise operations in fp64, one plain loop each. Arrays are contiguous
// [rows, width]; what each computes is said in the header of the operation of the same name.
#pragma once

#include <cstdint>
#include <vector>

namespace lasp::kernels::reference {

// op(A) op(B) for op(A) [m, k] and op(B) [k, n].
std::vector<double> Gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                         const std::vector<double>& a, const std::vector<double>& b);

std::vector<double> RmsNormForward(int64_t width, const std::vector<double>& x);

// The gradient of x.
std::vector<double> RmsNormBackward(int64_t width, const std::vector<double>& x,
                                    const std::vector<double>& output_gradient);

double Silu(double z);
double SiluGradient(double z);

struct CrossEntropyResult {
  double loss_sum = 0;
  std::vector<double> gradient;  // of the loss sum, [rows, vocabulary]
};

CrossEntropyResult CrossEntropy(int64_t vocabulary, const std::vector<double>& logits,
                                const std::vector<int32_t>& labels);

// AdamW from zero moments over a sequence of gradients, the update written step by step.
std::vector<double> AdamW(std::vector<double> parameter,
                          const std::vector<std::vector<double>>& gradients, double learning_rate,
                          double beta1, double beta2, double epsilon, double weight_decay,
                          double gradient_scale);

}  // namespace lasp::kernels::reference
