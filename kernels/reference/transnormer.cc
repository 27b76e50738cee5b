#include "kernels/reference/transnormer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "kernels/reference/softmax_attention.h"

namespace lasp::kernels::reference {
namespace {

using Matrix = std::vector<double>;  // [rows, width]

// x W^T for x [rows, inputs] and W [outputs, inputs].
Matrix Linear(const Matrix& x, const Matrix& weight, size_t inputs) {
  if (inputs == 0) {
    return {};
  }
  const size_t rows = x.size() / inputs;
  const size_t outputs = weight.size() / inputs;
  Matrix y(rows * outputs);
  for (size_t n = 0; n < rows; ++n) {
    for (size_t o = 0; o < outputs; ++o) {
      double sum = 0;
      for (size_t i = 0; i < inputs; ++i) {
        sum += x[n * inputs + i] * weight[o * inputs + i];
      }
      y[n * outputs + o] = sum;
    }
  }
  return y;
}

Matrix Norm(const Matrix& x, size_t width) {
  Matrix y(x.size());
  for (size_t start = 0; start < x.size(); start += width) {
    double squares = 0;
    for (size_t c = 0; c < width; ++c) {
      squares += x[start + c] * x[start + c];
    }
    const double rms = std::sqrt(squares / static_cast<double>(width) + 1e-6);
    for (size_t c = 0; c < width; ++c) {
      y[start + c] = x[start + c] / rms;
    }
  }
  return y;
}

double Silu(double z) { return z / (1.0 + std::exp(-z)); }

// q_n . k_m, turned by the distance of the two where there is theta.
double Score(const double* q, const double* k, const double* theta, size_t size, size_t distance) {
  double sum = 0;
  for (size_t c = 0; c < size; ++c) {
    const double turn = theta == nullptr ? 1.0 : std::cos(theta[c] * static_cast<double>(distance));
    sum += q[c] * k[c] * turn;
  }
  return sum;
}

// The mixer without its output projection's input norm: [batch * length, D].
Matrix Attention(const TransNormer& model, const TransNormerBlock& block, size_t layer,
                 size_t batch, size_t length, const Matrix& qkvu) {
  const auto width = static_cast<size_t>(model.hidden_size);
  const auto heads = static_cast<size_t>(model.heads);
  const size_t size = width / heads;
  Matrix o(batch * length * width);
  for (size_t b = 0; b < batch; ++b) {
    for (size_t h = 0; h < heads; ++h) {
      const double slope =
          TransNormerSlope(static_cast<int64_t>(layer), static_cast<int64_t>(model.blocks.size()),
                           static_cast<int64_t>(h), model.heads);
      const double* theta = block.theta.empty() ? nullptr : block.theta.data() + h * size;
      for (size_t n = 0; n < length; ++n) {
        double* const out = o.data() + (b * length + n) * width + h * size;
        const double* const q = qkvu.data() + (b * length + n) * 4 * width + h * size;
        for (size_t m = 0; m <= n; ++m) {
          const double* const k = qkvu.data() + (b * length + m) * 4 * width + width + h * size;
          const double* const v = k + width;
          const double weight =
              std::exp(-slope * static_cast<double>(n - m)) * Score(q, k, theta, size, n - m);
          for (size_t c = 0; c < size; ++c) {
            out[c] += weight * v[c];
          }
        }
      }
    }
  }
  return o;
}

Matrix GatedLinearAttention(const TransNormer& model, const TransNormerBlock& block, size_t layer,
                            size_t batch, size_t length, const Matrix& x) {
  const auto width = static_cast<size_t>(model.hidden_size);
  Matrix qkvu = Linear(x, block.qkvu, width);
  for (size_t n = 0; n < batch * length; ++n) {
    for (size_t c = 0; c < 2 * width; ++c) {
      qkvu[n * 4 * width + c] = Silu(qkvu[n * 4 * width + c]);
    }
  }
  Matrix gated = Norm(Attention(model, block, layer, batch, length, qkvu), width);
  for (size_t n = 0; n < batch * length; ++n) {
    for (size_t c = 0; c < width; ++c) {
      gated[n * width + c] *= qkvu[n * 4 * width + 3 * width + c];
    }
  }
  return Linear(gated, block.output, width);
}

double EluPlusOne(double z) { return z > 0 ? z + 1 : std::exp(z); }

Matrix NormalisedAttention(const TransNormer& model, const TransNormerBlock& block, size_t batch,
                           size_t length, const Matrix& x) {
  const auto width = static_cast<size_t>(model.hidden_size);
  const auto heads = static_cast<size_t>(model.heads);
  const size_t size = width / heads;
  const Matrix qkv = Linear(x, block.qkvu, width);
  Matrix o(batch * length * width);
  for (size_t b = 0; b < batch; ++b) {
    for (size_t h = 0; h < heads; ++h) {
      for (size_t n = 0; n < length; ++n) {
        const double* const q = qkv.data() + (b * length + n) * 3 * width + h * size;
        double* const out = o.data() + (b * length + n) * width + h * size;
        double weights = 1e-6;
        for (size_t m = 0; m <= n; ++m) {
          const double* const k = qkv.data() + (b * length + m) * 3 * width + width + h * size;
          double weight = 0;
          for (size_t c = 0; c < size; ++c) {
            weight += EluPlusOne(q[c]) * EluPlusOne(k[c]);
          }
          weights += weight;
          for (size_t c = 0; c < size; ++c) {
            out[c] += weight * k[width + c];
          }
        }
        for (size_t c = 0; c < size; ++c) {
          out[c] /= weights;
        }
      }
    }
  }
  return Linear(o, block.output, width);
}

// Columns [begin, begin + count) of x [rows, width].
Matrix ColumnsOf(const Matrix& x, size_t width, size_t begin, size_t count) {
  Matrix y;
  for (size_t start = begin; start < x.size(); start += width) {
    y.insert(y.end(), x.begin() + static_cast<std::ptrdiff_t>(start),
             x.begin() + static_cast<std::ptrdiff_t>(start + count));
  }
  return y;
}

Matrix SoftmaxMixer(const TransNormer& model, const TransNormerBlock& block, int64_t batch,
                    int64_t length, const Matrix& x) {
  const auto width = static_cast<size_t>(model.hidden_size);
  const int64_t size = model.hidden_size / model.heads;
  const auto kv_width = static_cast<size_t>(block.kv_heads * size);
  const size_t all = width + 2 * kv_width;
  const Matrix qkv = Linear(x, block.qkvu, width);
  const auto turned = [&](const Matrix& rows, int64_t heads) {
    return Rotated(rows, length, heads, size, 0, model.rotary_base);
  };
  const SoftmaxAttention attention{
      .batch = batch,
      .queries = length,
      .keys = length,
      .heads = model.heads,
      .kv_heads = block.kv_heads,
      .size = size,
      .q = turned(ColumnsOf(qkv, all, 0, width), model.heads),
      .k = turned(ColumnsOf(qkv, all, width, kv_width), block.kv_heads),
      .v = ColumnsOf(qkv, all, width + kv_width, kv_width)};
  return Linear(SoftmaxAttentionForward(attention).output, block.output, width);
}

Matrix LinearMixer(const TransNormer& model, const TransNormerBlock& block, size_t layer,
                   size_t batch, size_t length, const Matrix& x) {
  return model.linear_transformer ? NormalisedAttention(model, block, batch, length, x)
                                  : GatedLinearAttention(model, block, layer, batch, length, x);
}

void AddPositions(size_t length, size_t width, Matrix& x) {
  for (size_t row = 0; row * width < x.size(); ++row) {
    const auto position = static_cast<double>(row % std::max<size_t>(1, length));
    for (size_t column = 0; column < width; ++column) {
      // 2 floor(column / 2)
      const auto even = static_cast<double>(column - column % 2);
      const double angle = position / std::pow(10000.0, even / static_cast<double>(width));
      x[row * width + column] += column % 2 == 0 ? std::sin(angle) : std::cos(angle);
    }
  }
}

Matrix GatedLinearUnit(const TransNormer& model, const TransNormerBlock& block, const Matrix& x) {
  const auto width = static_cast<size_t>(model.hidden_size);
  const auto glu = static_cast<size_t>(model.glu_size);
  const Matrix both = Linear(x, block.glu_input, width);
  const size_t rows = x.size() / width;
  Matrix product(rows * glu);
  for (size_t n = 0; n < rows; ++n) {
    for (size_t c = 0; c < glu; ++c) {
      product[n * glu + c] = both[n * 2 * glu + c] * both[n * 2 * glu + glu + c];
    }
  }
  return Linear(product, block.glu_output, glu);
}

void AddTo(Matrix& x, const Matrix& y) {
  std::transform(x.begin(), x.end(), y.begin(), x.begin(),
                 [](double a, double b) { return a + b; });
}

}  // namespace

double TransNormerSlope(int64_t layer, int64_t layers, int64_t head, int64_t heads) {
  int64_t whole = 1;
  while (2 * whole <= heads) {
    whole *= 2;
  }
  // The ALiBi ratio of n heads, 2^(-2^(-(log2 n - 3))).
  const auto slope_of = [](int64_t n, int64_t h) {
    const double ratio = std::pow(2.0, -std::pow(2.0, -(std::log2(static_cast<double>(n)) - 3.0)));
    return std::pow(ratio, static_cast<double>(h + 1));
  };
  const double base =
      head < whole ? slope_of(whole, head) : slope_of(2 * whole, 2 * (head - whole));
  const double depth =
      layers == 1 ? 0.0 : static_cast<double>(layer) / static_cast<double>(layers - 1);
  return base * (1.0 - depth + 1e-5);
}

std::vector<double> TransNormerLogits(const TransNormer& model, int64_t batch, int64_t length,
                                      const std::vector<int32_t>& ids) {
  const auto width = static_cast<size_t>(model.hidden_size);
  const double scale = std::sqrt(static_cast<double>(model.hidden_size));
  Matrix x(ids.size() * width);
  for (size_t n = 0; n < ids.size(); ++n) {
    for (size_t c = 0; c < width; ++c) {
      x[n * width + c] = scale * model.embedding[static_cast<size_t>(ids[n]) * width + c];
    }
  }
  if (model.linear_transformer) {
    AddPositions(static_cast<size_t>(length), width, x);
  }
  for (size_t layer = 0; layer < model.blocks.size(); ++layer) {
    const TransNormerBlock& block = model.blocks[layer];
    const Matrix normed = Norm(x, width);
    AddTo(x, block.kv_heads > 0 ? SoftmaxMixer(model, block, batch, length, normed)
                                : LinearMixer(model, block, layer, static_cast<size_t>(batch),
                                              static_cast<size_t>(length), normed));
    AddTo(x, GatedLinearUnit(model, block, Norm(x, width)));
  }
  return Linear(Norm(x, width), model.head.empty() ? model.embedding : model.head, width);
}

double TransNormerLoss(const TransNormer& model, int64_t batch, int64_t length,
                       const std::vector<int32_t>& ids, const std::vector<int32_t>& labels) {
  const std::vector<double> logits = TransNormerLogits(model, batch, length, ids);
  const auto vocabulary = static_cast<size_t>(model.vocabulary);
  double sum = 0;
  size_t count = 0;
  for (size_t n = 0; n < labels.size(); ++n) {
    if (labels[n] < 0) {
      continue;
    }
    const double* const row = logits.data() + n * vocabulary;
    const double maximum = *std::max_element(row, row + vocabulary);
    double total = 0;
    for (size_t c = 0; c < vocabulary; ++c) {
      total += std::exp(row[c] - maximum);
    }
    sum += std::log(total) + maximum - row[labels[n]];
    ++count;
  }
  return sum / static_cast<double>(count);
}

}  // namespace lasp::kernels::reference
