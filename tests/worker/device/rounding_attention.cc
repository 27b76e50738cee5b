#include "tests/worker/device/rounding_attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "tests/worker/device/rounding.h"

namespace lasp::worker {
namespace {

constexpr int64_t kChunk = 64;

struct Matrix {
  Matrix(int64_t row_count, int64_t column_count)
      : rows(row_count),
        columns(column_count),
        values(static_cast<size_t>(row_count * column_count)) {}

  float& operator()(int64_t row, int64_t column) { return values[row * columns + column]; }

  float operator()(int64_t row, int64_t column) const { return values[row * columns + column]; }

  int64_t rows;
  int64_t columns;
  std::vector<float> values;
};

// One matrix, or with LRPE the cosine half and the sine half.
using Halves = std::vector<Matrix>;

// An element each from its place.
template <typename ValueAt>
Matrix Filled(int64_t rows, int64_t columns, const ValueAt& value_at) {
  Matrix matrix(rows, columns);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      matrix(i, j) = value_at(i, j);
    }
  }
  return matrix;
}

Matrix Transposed(const Matrix& a) {
  return Filled(a.columns, a.rows, [&](int64_t i, int64_t j) { return a(j, i); });
}

Matrix Rounded(Matrix a) {
  for (float& value : a.values) {
    value = RoundedToBf16(value);
  }
  return a;
}

Halves Rounded(Halves halves) {
  for (Matrix& half : halves) {
    half = Rounded(std::move(half));
  }
  return halves;
}

// c += a b
void AddProduct(const Matrix& a, const Matrix& b, Matrix& c) {
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t k = 0; k < a.columns; ++k) {
      const float factor = a(i, k);
      for (int64_t j = 0; j < b.columns; ++j) {
        c(i, j) += factor * b(k, j);
      }
    }
  }
}

Matrix Product(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.columns);
  AddProduct(a, b, c);
  return c;
}

// The sum over the halves of a b.
Matrix Product(const Halves& a, const Halves& b) {
  Matrix c(a[0].rows, b[0].columns);
  for (size_t half = 0; half < a.size(); ++half) {
    AddProduct(a[half], b[half], c);
  }
  return c;
}

Halves Transposed(const Halves& halves) {
  Halves transposed;
  for (const Matrix& half : halves) {
    transposed.push_back(Transposed(half));
  }
  return transposed;
}

// Each row times its weight.
template <typename WeightOf>
Matrix Weighted(Matrix a, const WeightOf& weight_of) {
  for (int64_t i = 0; i < a.rows; ++i) {
    const float weight = weight_of(i);
    for (int64_t j = 0; j < a.columns; ++j) {
      a(i, j) *= weight;
    }
  }
  return a;
}

// One head of one sequence.
class Head {
 public:
  Head(const AttentionShape& shape, int64_t batch, int64_t head)
      : shape_(shape),
        first_row_(batch * shape.tokens),
        first_column_(head * shape.head_size),
        pair_(batch * shape.heads + head),
        slope_(static_cast<const double*>(shape.slopes.data)[head]),
        theta_(shape.lrpe ? static_cast<const double*>(shape.theta.data) + head * shape.head_size
                          : nullptr) {}

  int64_t size() const { return shape_.head_size; }

  int64_t chunks() const { return (shape_.tokens + kChunk - 1) / kChunk; }

  int64_t Length(int64_t chunk) const { return std::min(kChunk, shape_.tokens - chunk * kChunk); }

  // Tokens after a chunk.
  int64_t After(int64_t chunk) const { return shape_.tokens - chunk * kChunk - Length(chunk); }

  float Decay(int64_t distance) const {
    return static_cast<float>(std::exp(-slope_ * static_cast<double>(distance)));
  }

  Matrix Load(Tensor tensor, int64_t chunk) const {
    return Filled(Length(chunk), size(),
                  [&](int64_t i, int64_t j) { return FromBf16(At(tensor, chunk, i)[j]); });
  }

  void Store(const Matrix& values, Tensor tensor, int64_t chunk) const {
    for (int64_t i = 0; i < values.rows; ++i) {
      for (int64_t j = 0; j < values.columns; ++j) {
        At(tensor, chunk, i)[j] = ToBf16(values(i, j));
      }
    }
  }

  Halves NoState() const { return Halves(theta_ == nullptr ? 1 : 2, Matrix(size(), size())); }

  // Of a tensor with `count` states for each head.
  Halves LoadState(Tensor states, int64_t count, int64_t index) const {
    Halves halves = NoState();
    const float* from = StateAt(states, count, index);
    for (Matrix& half : halves) {
      std::copy_n(from, half.values.size(), half.values.begin());
      from += half.values.size();
    }
    return halves;
  }

  void StoreState(const Halves& halves, Tensor states, int64_t count, int64_t index) const {
    float* to = StateAt(states, count, index);
    for (const Matrix& half : halves) {
      to = std::copy(half.values.begin(), half.values.end(), to);
    }
  }

  // Adds factor * (a state whose origin is moved ahead by `tokens`).
  void AddMoved(const Halves& from, int64_t tokens, float factor, Halves& to) const {
    for (int64_t i = 0; i < size(); ++i) {
      const double angle = theta_ == nullptr ? 0 : theta_[i] * static_cast<double>(tokens);
      const auto cosine = factor * static_cast<float>(std::cos(angle));
      const auto sine = factor * static_cast<float>(std::sin(angle));
      for (int64_t j = 0; j < size(); ++j) {
        to[0](i, j) += cosine * from[0](i, j);
        if (theta_ != nullptr) {
          to[0](i, j) += sine * from[1](i, j);
          to[1](i, j) += cosine * from[1](i, j) - sine * from[0](i, j);
        }
      }
    }
  }

  // What a given state (null: none) adds to the one at a chunk's border.
  void AddGiven(Tensor given, int64_t tokens, int64_t distance, Halves& to) const {
    if (!given.empty()) {
      AddMoved(LoadState(given, 1, 0), tokens, Decay(distance), to);
    }
  }

  // cos and sin of theta times the positions of a chunk's rows, the first at `position`.
  Halves Angles(int64_t rows, int64_t position) const {
    const auto angle = [&](int64_t i, int64_t j) {
      return theta_[j] * static_cast<double>(position + i);
    };
    return {Filled(rows, size(),
                   [&](int64_t i, int64_t j) { return static_cast<float>(std::cos(angle(i, j))); }),
            Filled(rows, size(), [&](int64_t i, int64_t j) {
              return static_cast<float>(std::sin(angle(i, j)));
            })};
  }

  // The same from a table of halves, as the kernel of theta's gradient has them.
  Halves TableAngles(int64_t rows, int64_t position) const {
    Halves table = Angles(rows, 0);
    for (int64_t j = 0; j < size(); ++j) {
      const double start = theta_[j] * static_cast<double>(position);
      const auto c = static_cast<float>(std::cos(start));
      const auto s = static_cast<float>(std::sin(start));
      for (int64_t i = 0; i < rows; ++i) {
        const float row_c = RoundedToHalf(table[0](i, j));
        const float row_s = RoundedToHalf(table[1](i, j));
        table[0](i, j) = c * row_c - s * row_s;
        table[1](i, j) = s * row_c + c * row_s;
      }
    }
    return table;
  }

  // Rows by their angles, rounded once.
  static Halves Rotated(const Matrix& x, const Halves& angles) {
    Halves rotated = angles;
    for (Matrix& half : rotated) {
      for (size_t i = 0; i < half.values.size(); ++i) {
        half.values[i] = RoundedToBf16(x.values[i] * half.values[i]);
      }
    }
    return rotated;
  }

  Halves Rotated(const Matrix& x, int64_t position) const {
    return theta_ == nullptr ? Halves{x} : Rotated(x, Angles(x.rows, position));
  }

  // The gradient of what has been rotated, from those of its halves.
  Matrix TurnedBack(const Halves& gradients, int64_t position) const {
    if (theta_ == nullptr) {
      return gradients[0];
    }
    const Halves angles = Angles(gradients[0].rows, position);
    return Filled(gradients[0].rows, size(), [&](int64_t i, int64_t j) {
      return gradients[0](i, j) * angles[0](i, j) + gradients[1](i, j) * angles[1](i, j);
    });
  }

  // keys^T values, each token with its weight: of the keys where they are rotated, else of the
  // values.
  template <typename WeightOf>
  Halves State(Matrix keys, Matrix values, int64_t position, const WeightOf& weight_of) const {
    if (theta_ == nullptr) {
      values = Rounded(Weighted(std::move(values), weight_of));
    } else {
      keys = Weighted(std::move(keys), weight_of);
    }
    Halves state;
    for (const Matrix& half : Transposed(Rotated(keys, position))) {
      state.push_back(Product(half, values));
    }
    return state;
  }

  // Scores of pairs, times their decay: rows see columns before them, or after them.
  Matrix Seen(const Matrix& scores, bool after) const {
    return Filled(scores.rows, scores.columns, [&](int64_t i, int64_t j) {
      const int64_t distance = after ? j - i : i - j;
      return distance < 0 ? 0.0F : RoundedToBf16(scores(i, j) * Decay(distance));
    });
  }

  // Theta's gradient of a chunk, into sums [size]. `state` is the one before the chunk, `gradient`
  // that of the state after it.
  void AddThetaGradient(const Matrix& q, const Matrix& k, const Matrix& v,
                        const Matrix& output_gradient, const Halves& state, const Halves& gradient,
                        double* sums) const {
    const int64_t length = q.rows;
    Halves moved = NoState();
    AddMoved(state, length, 1, moved);
    const Halves rounded = Rounded(moved);
    const Halves angles = TableAngles(length, -length);
    const Halves keys = Rotated(k, angles);
    const Matrix scores = Product(output_gradient, Transposed(v));
    const Matrix seen = Filled(length, length, [&](int64_t i, int64_t j) {
      const auto distance = static_cast<float>(i - j);
      return i < j ? 0.0F : RoundedToBf16(scores(i, j) * distance * Decay(i - j));
    });
    Halves far = NoState();  // what distances have added up to after the chunk
    Halves gradients;
    for (size_t half = 0; half < 2; ++half) {
      gradients.push_back(
          Weighted(Product(output_gradient, Transposed(rounded[half])),
                   [&](int64_t i) { return static_cast<float>(i) * Decay(i + 1); }));
      AddProduct(seen, keys[half], gradients[half]);
      far[half] = Weighted(rounded[half],
                           [&](int64_t) { return Decay(length) * static_cast<float>(length); });
      AddProduct(
          Transposed(Rounded(Weighted(
              keys[half],
              [&](int64_t i) { return Decay(length - 1 - i) * static_cast<float>(length - i); }))),
          v, far[half]);
    }
    for (int64_t j = 0; j < size(); ++j) {
      for (int64_t i = 0; i < length; ++i) {
        sums[j] += static_cast<double>(q(i, j) * (gradients[1](i, j) * angles[0](i, j) -
                                                  gradients[0](i, j) * angles[1](i, j)));
      }
      for (int64_t value = 0; value < size(); ++value) {
        sums[j] += static_cast<double>(far[1](j, value) * gradient[0](j, value) -
                                       far[0](j, value) * gradient[1](j, value));
      }
    }
  }

 private:
  uint16_t* At(Tensor tensor, int64_t chunk, int64_t row) const {
    return static_cast<uint16_t*>(tensor.data) +
           (first_row_ + chunk * kChunk + row) * tensor.row_stride + first_column_;
  }

  float* StateAt(Tensor states, int64_t count, int64_t index) const {
    return static_cast<float*>(states.data) +
           (pair_ * count + index) * shape_.state_rows() * size();
  }

  const AttentionShape& shape_;
  const int64_t first_row_;
  const int64_t first_column_;
  const int64_t pair_;
  const double slope_;
  const double* const theta_;
};

template <typename Body>
void ForEachHead(const AttentionShape& shape, const Body& body) {
  for (int64_t batch = 0; batch < shape.batch; ++batch) {
    for (int64_t head = 0; head < shape.heads; ++head) {
      body(Head(shape, batch, head), head);
    }
  }
}

}  // namespace

void RoundingLocalState(const AttentionShape& shape, Tensor k, Tensor v, Tensor state,
                        Tensor saved_states) {
  ForEachHead(shape, [&](const Head& head, int64_t) {
    Halves running = head.NoState();
    for (int64_t chunk = 0; chunk < head.chunks(); ++chunk) {
      head.StoreState(running, saved_states, head.chunks(), chunk);
      const int64_t length = head.Length(chunk);
      Halves next = head.State(head.Load(k, chunk), head.Load(v, chunk), -length,
                               [&](int64_t i) { return head.Decay(length - 1 - i); });
      head.AddMoved(running, length, head.Decay(length), next);
      running = std::move(next);
    }
    head.StoreState(running, state, 1, 0);
  });
}

void RoundingOutput(const AttentionShape& shape, const AttentionForward& tensors) {
  ForEachHead(shape, [&](const Head& head, int64_t) {
    for (int64_t chunk = 0; chunk < head.chunks(); ++chunk) {
      Halves state = head.LoadState(tensors.saved_states, head.chunks(), chunk);
      head.AddGiven(tensors.state_in, chunk * kChunk, chunk * kChunk, state);
      head.StoreState(state, tensors.saved_states, head.chunks(), chunk);
      const Halves q = head.Rotated(head.Load(tensors.q, chunk), 0);
      const Halves k = head.Rotated(head.Load(tensors.k, chunk), 0);
      Matrix output =
          Weighted(Product(q, Rounded(state)), [&](int64_t i) { return head.Decay(i + 1); });
      AddProduct(head.Seen(Product(q, Transposed(k)), false), head.Load(tensors.v, chunk), output);
      head.Store(output, tensors.output, chunk);
    }
  });
}

void RoundingLocalStateGradient(const AttentionShape& shape, Tensor q, Tensor output_gradient,
                                Tensor state_gradient, Tensor saved_gradients) {
  ForEachHead(shape, [&](const Head& head, int64_t) {
    Halves running = head.NoState();
    for (int64_t chunk = head.chunks() - 1; chunk >= 0; --chunk) {
      head.StoreState(running, saved_gradients, head.chunks(), chunk);
      const int64_t length = head.Length(chunk);
      Halves next = head.State(head.Load(q, chunk), head.Load(output_gradient, chunk), 0,
                               [&](int64_t i) { return head.Decay(i + 1); });
      head.AddMoved(running, -length, head.Decay(length), next);
      running = std::move(next);
    }
    head.StoreState(running, state_gradient, 1, 0);
  });
}

void RoundingGradients(const AttentionShape& shape, const AttentionBackward& tensors) {
  std::vector<double> theta(static_cast<size_t>(shape.heads * shape.head_size), 0);
  ForEachHead(shape, [&](const Head& head, int64_t head_index) {
    for (int64_t chunk = 0; chunk < head.chunks(); ++chunk) {
      const int64_t length = head.Length(chunk);
      const Halves state = head.LoadState(tensors.saved_states, head.chunks(), chunk);
      Halves gradient = head.LoadState(tensors.saved_gradients, head.chunks(), chunk);
      head.AddGiven(tensors.state_gradient_in, -head.After(chunk), head.After(chunk), gradient);
      const Matrix q = head.Load(tensors.q, chunk);
      const Matrix k = head.Load(tensors.k, chunk);
      const Matrix v = head.Load(tensors.v, chunk);
      const Matrix d_o = head.Load(tensors.output_gradient, chunk);
      const auto before = [&](int64_t i) { return head.Decay(i + 1); };
      const auto behind = [&](int64_t i) { return head.Decay(length - 1 - i); };

      Halves d_q;
      const Matrix seen = head.Seen(Product(d_o, Transposed(v)), false);
      const Halves keys = head.Rotated(k, 0);
      for (size_t half = 0; half < keys.size(); ++half) {
        d_q.push_back(Weighted(Product(d_o, Transposed(Rounded(state[half]))), before));
        AddProduct(seen, keys[half], d_q[half]);
      }
      head.Store(head.TurnedBack(d_q, 0), tensors.q_gradient, chunk);

      const Halves queries_behind = head.Rotated(q, -length);
      const Halves keys_behind = head.Rotated(k, -length);
      Matrix d_v = Weighted(Product(keys_behind, Rounded(gradient)), behind);
      AddProduct(head.Seen(Product(keys_behind, Transposed(queries_behind)), true), d_o, d_v);
      head.Store(d_v, tensors.v_gradient, chunk);

      Halves d_k;
      const Matrix seen_after = head.Seen(Product(v, Transposed(d_o)), true);
      for (size_t half = 0; half < queries_behind.size(); ++half) {
        d_k.push_back(Weighted(Product(v, Transposed(Rounded(gradient[half]))), behind));
        AddProduct(seen_after, queries_behind[half], d_k[half]);
      }
      head.Store(head.TurnedBack(d_k, -length), tensors.k_gradient, chunk);

      if (!tensors.theta_gradient.empty()) {
        head.AddThetaGradient(q, k, v, d_o, state, gradient,
                              theta.data() + head_index * shape.head_size);
      }
    }
  });
  if (!tensors.theta_gradient.empty()) {
    auto* const to = static_cast<float*>(tensors.theta_gradient.data);
    for (size_t i = 0; i < theta.size(); ++i) {
      to[i] = static_cast<float>(static_cast<double>(to[i]) + theta[i]);
    }
  }
}

}  // namespace lasp::worker
