#include "kernels/reference/linear_attention.h"

#include <cmath>
#include <cstddef>

namespace lasp::kernels::reference {
namespace {

// Wider than fp64: the gradient of theta multiplies rounding errors by positions of up to 2^26.
using Real = long double;

struct Rotation {
  Real cosine;
  Real sine;
};

// The product of theta and the position is kept exactly, as the sum of two numbers.
Rotation RotationAt(double theta, int64_t position) {
  const Real factor = theta;
  const auto tokens = static_cast<Real>(position);
  const Real angle = factor * tokens;
  const Real rest = std::fma(factor, tokens, -angle);
  return {std::cos(angle) - rest * std::sin(angle), std::sin(angle) + rest * std::cos(angle)};
}

// One (batch, head) pair.
class Head {
 public:
  Head(const LinearAttention& x, int64_t batch, int64_t head)
      : x_(x),
        batch_(batch),
        head_(head),
        lambda_(std::exp(-static_cast<Real>(x.slopes[static_cast<size_t>(head)]))),
        rotary_(!x.theta.empty()),
        rows_(static_cast<size_t>(rotary_ ? 2 * x.key_size : x.key_size)),
        columns_(static_cast<size_t>(x.value_size)) {}

  size_t At(int64_t token, int64_t width) const {
    return static_cast<size_t>(((batch_ * x_.tokens + token) * x_.heads + head_) * width);
  }

  Rotation RotationOf(int64_t token, size_t c) const {
    return RotationAt(x_.theta[static_cast<size_t>(head_ * x_.key_size) + c],
                      x_.first_position + token);
  }

  // Row `token` of q or k, rotated where there is theta.
  std::vector<Real> Key(const std::vector<double>& source, int64_t token) const {
    const size_t start = At(token, x_.key_size);
    const auto size = static_cast<size_t>(x_.key_size);
    std::vector<Real> row(rows_);
    for (size_t c = 0; c < size; ++c) {
      const Real value = source[start + c];
      row[c] = value;
      if (rotary_) {
        const Rotation rotation = RotationOf(token, c);
        row[c] = value * rotation.cosine;
        row[size + c] = value * rotation.sine;
      }
    }
    return row;
  }

  std::vector<Real> Value(const std::vector<double>& source, int64_t token) const {
    const auto start = source.begin() + static_cast<std::ptrdiff_t>(At(token, x_.value_size));
    return {start, start + x_.value_size};
  }

  // Writes the gradient of q or k at `token` from that of its rotated row; adds theta's.
  void Unrotate(const std::vector<double>& source, int64_t token, const std::vector<Real>& gradient,
                std::vector<double>& out, std::vector<Real>& theta) const {
    const size_t start = At(token, x_.key_size);
    const auto size = static_cast<size_t>(x_.key_size);
    for (size_t c = 0; c < size; ++c) {
      if (!rotary_) {
        out[start + c] = static_cast<double>(gradient[c]);
        continue;
      }
      const auto [cosine, sine] = RotationOf(token, c);
      out[start + c] = static_cast<double>(gradient[c] * cosine + gradient[size + c] * sine);
      theta[static_cast<size_t>(head_ * x_.key_size) + c] +=
          static_cast<Real>(x_.first_position + token) * static_cast<Real>(source[start + c]) *
          (gradient[size + c] * cosine - gradient[c] * sine);
    }
  }

  // state = lambda state + key^T value
  void Step(std::vector<Real>& state, const std::vector<Real>& key,
            const std::vector<Real>& value) const {
    for (size_t r = 0; r < rows_; ++r) {
      for (size_t c = 0; c < columns_; ++c) {
        state[r * columns_ + c] = lambda_ * state[r * columns_ + c] + key[r] * value[c];
      }
    }
  }

  std::vector<Real> TimesState(const std::vector<Real>& key, const std::vector<Real>& state) const {
    std::vector<Real> out(columns_);
    for (size_t r = 0; r < rows_; ++r) {
      for (size_t c = 0; c < columns_; ++c) {
        out[c] += key[r] * state[r * columns_ + c];
      }
    }
    return out;
  }

  std::vector<Real> TimesTransposedState(const std::vector<Real>& value,
                                         const std::vector<Real>& state) const {
    std::vector<Real> out(rows_);
    for (size_t r = 0; r < rows_; ++r) {
      for (size_t c = 0; c < columns_; ++c) {
        out[r] += value[c] * state[r * columns_ + c];
      }
    }
    return out;
  }

  std::vector<Real> ZeroState() const { return std::vector<Real>(rows_ * columns_); }

  void Forward(std::vector<double>& output) const {
    std::vector<Real> state = ZeroState();
    for (int64_t n = 0; n < x_.tokens; ++n) {
      Step(state, Key(x_.k, n), Value(x_.v, n));
      Write(TimesState(Key(x_.q, n), state), n, output);
    }
  }

  void Backward(const std::vector<double>& d_o, LinearAttentionGradients& out,
                std::vector<Real>& theta) const {
    std::vector<Real> state = ZeroState();
    for (int64_t n = 0; n < x_.tokens; ++n) {
      Step(state, Key(x_.k, n), Value(x_.v, n));
      Unrotate(x_.q, n, TimesTransposedState(Value(d_o, n), state), out.q, theta);
    }
    // The gradient of the state: dS_n = lambda dS_{n+1} + q_n^T do_n.
    std::vector<Real> gradient = ZeroState();
    for (int64_t n = x_.tokens - 1; n >= 0; --n) {
      Step(gradient, Key(x_.q, n), Value(d_o, n));
      Unrotate(x_.k, n, TimesTransposedState(Value(x_.v, n), gradient), out.k, theta);
      Write(TimesState(Key(x_.k, n), gradient), n, out.v);
    }
  }

 private:
  void Write(const std::vector<Real>& row, int64_t token, std::vector<double>& out) const {
    for (size_t c = 0; c < columns_; ++c) {
      out[At(token, x_.value_size) + c] = static_cast<double>(row[c]);
    }
  }

  const LinearAttention& x_;
  int64_t batch_;
  int64_t head_;
  Real lambda_;
  bool rotary_;
  size_t rows_;
  size_t columns_;
};

}  // namespace

std::vector<double> LinearAttentionForward(const LinearAttention& x) {
  std::vector<double> output(x.v.size());
  for (int64_t batch = 0; batch < x.batch; ++batch) {
    for (int64_t head = 0; head < x.heads; ++head) {
      Head(x, batch, head).Forward(output);
    }
  }
  return output;
}

LinearAttentionGradients LinearAttentionBackward(const LinearAttention& x,
                                                 const std::vector<double>& output_gradient) {
  LinearAttentionGradients out;
  out.q.resize(x.q.size());
  out.k.resize(x.k.size());
  out.v.resize(x.v.size());
  std::vector<Real> theta(x.theta.size());
  for (int64_t batch = 0; batch < x.batch; ++batch) {
    for (int64_t head = 0; head < x.heads; ++head) {
      Head(x, batch, head).Backward(output_gradient, out, theta);
    }
  }
  out.theta.assign(theta.begin(), theta.end());
  return out;
}

}  // namespace lasp::kernels::reference
