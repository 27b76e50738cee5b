#include "kernels/reference/operations.h"

#include <cmath>
#include <cstddef>

namespace lasp::kernels::reference {

std::vector<double> Gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                         const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> c(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l) {
        sum += a[static_cast<size_t>(transpose_a ? l * m + i : i * k + l)] *
               b[static_cast<size_t>(transpose_b ? j * k + l : l * n + j)];
      }
      c[static_cast<size_t>(i * n + j)] = sum;
    }
  }
  return c;
}

std::vector<double> RmsNormForward(int64_t width, const std::vector<double>& x) {
  std::vector<double> y(x.size());
  const auto columns = static_cast<size_t>(width);
  for (size_t start = 0; start < x.size(); start += columns) {
    double squares = 0;
    for (size_t c = 0; c < columns; ++c) {
      squares += x[start + c] * x[start + c];
    }
    for (size_t c = 0; c < columns; ++c) {
      y[start + c] = x[start + c] / std::sqrt(squares / static_cast<double>(width) + 1e-6);
    }
  }
  return y;
}

std::vector<double> RmsNormBackward(int64_t width, const std::vector<double>& x,
                                    const std::vector<double>& output_gradient) {
  // By the full Jacobian: dy_c / dx_e = r (delta_ce - x_c x_e r^2 / width).
  std::vector<double> gradient(x.size());
  const auto columns = static_cast<size_t>(width);
  for (size_t start = 0; start < x.size(); start += columns) {
    double squares = 0;
    for (size_t c = 0; c < columns; ++c) {
      squares += x[start + c] * x[start + c];
    }
    const double r = 1.0 / std::sqrt(squares / static_cast<double>(width) + 1e-6);
    for (size_t e = 0; e < columns; ++e) {
      double sum = 0;
      for (size_t c = 0; c < columns; ++c) {
        const double same = c == e ? 1.0 : 0.0;
        sum += output_gradient[start + c] * r *
               (same - x[start + c] * x[start + e] * r * r / static_cast<double>(width));
      }
      gradient[start + e] = sum;
    }
  }
  return gradient;
}

double Silu(double z) { return z / (1.0 + std::exp(-z)); }

double SiluGradient(double z) {
  const double sigmoid = 1.0 / (1.0 + std::exp(-z));
  return sigmoid + z * sigmoid * (1.0 - sigmoid);
}

CrossEntropyResult CrossEntropy(int64_t vocabulary, const std::vector<double>& logits,
                                const std::vector<int32_t>& labels) {
  CrossEntropyResult result;
  result.gradient.resize(logits.size());
  const auto columns = static_cast<size_t>(vocabulary);
  for (size_t row = 0; row < labels.size(); ++row) {
    if (labels[row] < 0) {
      continue;
    }
    const size_t start = row * columns;
    const auto label = start + static_cast<size_t>(labels[row]);
    // Relative to the label's logit, so that no maximum is searched.
    double total = 0;
    for (size_t c = 0; c < columns; ++c) {
      total += std::exp(logits[start + c] - logits[label]);
    }
    result.loss_sum += std::log(total);
    for (size_t c = 0; c < columns; ++c) {
      result.gradient[start + c] = std::exp(logits[start + c] - logits[label]) / total;
    }
    result.gradient[label] -= 1.0;
  }
  return result;
}

std::vector<double> AdamW(std::vector<double> parameter,
                          const std::vector<std::vector<double>>& gradients, double learning_rate,
                          double beta1, double beta2, double epsilon, double weight_decay,
                          double gradient_scale) {
  std::vector<double> first(parameter.size());
  std::vector<double> second(parameter.size());
  for (size_t step = 0; step < gradients.size(); ++step) {
    const auto n = static_cast<double>(step + 1);
    for (size_t i = 0; i < parameter.size(); ++i) {
      const double g = gradient_scale * gradients[step][i];
      first[i] = beta1 * first[i] + (1 - beta1) * g;
      second[i] = beta2 * second[i] + (1 - beta2) * g * g;
      const double m = first[i] / (1 - std::pow(beta1, n));
      const double v = second[i] / (1 - std::pow(beta2, n));
      parameter[i] -= learning_rate * (weight_decay * parameter[i] + m / (std::sqrt(v) + epsilon));
    }
  }
  return parameter;
}

}  // namespace lasp::kernels::reference
