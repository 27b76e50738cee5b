#include "kernels/attention_normaliser.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/document_marks.h"
#include "kernels/cpu/linear_attention_head.h"
#include "kernels/cpu/parallel.h"

namespace lasp::kernels::cpu {
namespace {

// A running sum of rows of one head.
template <typename T>
class RowSum {
 public:
  // From `start` [size]; null: zeros.
  RowSum(int64_t size, const T* start) : sum_(static_cast<size_t>(size)) {
    if (start != nullptr) {
      std::copy_n(start, size, sum_.begin());
    }
  }

  void Clear() { std::fill(sum_.begin(), sum_.end(), 0.0); }

  void Add(const T* row) {
    for (size_t c = 0; c < sum_.size(); ++c) {
      sum_[c] += row[c];
    }
  }

  void Add(double factor, const T* row) {
    for (size_t c = 0; c < sum_.size(); ++c) {
      sum_[c] += factor * row[c];
    }
  }

  double Dot(const T* row) const {
    double dot = 0;
    for (size_t c = 0; c < sum_.size(); ++c) {
      dot += sum_[c] * row[c];
    }
    return dot;
  }

  void AddTo(double factor, T* row) const {
    for (size_t c = 0; c < sum_.size(); ++c) {
      row[c] += static_cast<T>(factor * sum_[c]);
    }
  }

  void Store(T* target) const {
    std::transform(sum_.begin(), sum_.end(), target, [](double x) { return static_cast<T>(x); });
  }

 private:
  std::vector<double> sum_;
};

// The numbers of one head in [batch, tokens, heads].
template <typename T>
Rows<T> NumbersOf(const LinearAttentionShape& shape, T* numbers, int64_t batch, int64_t head) {
  return {numbers + batch * shape.tokens * shape.heads + head, shape.heads};
}

// The part of a [batch, heads, key_size] sum that is a pair's, or null.
template <typename T>
T* SumOf(const LinearAttentionShape& shape, T* sums, int64_t pair) {
  return sums == nullptr ? nullptr : sums + pair * shape.key_size;
}

// Calls body(pair, batch, head) for every (batch, head).
template <typename Body>
void ForEachPair(const LinearAttentionShape& shape, const Body& body) {
  ParallelRanges(shape.batch * shape.heads, 4 * shape.tokens * shape.key_size,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t pair = begin; pair < end; ++pair) {
                     body(pair, pair / shape.heads, pair % shape.heads);
                   }
                 });
}

}  // namespace

template <typename T>
void KeySum(const KeySumArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  ForEachPair(shape, [&](int64_t pair, int64_t batch, int64_t head) {
    const Rows<const T> k = RowsOf(args.k, batch, head);
    RowSum<T> sum(shape.key_size, nullptr);
    // Of the last document.
    for (int64_t token = std::max<int64_t>(LastStart(shape, batch), 0); token < shape.tokens;
         ++token) {
      sum.Add(k.At(token));
    }
    sum.Store(SumOf(shape, args.sum, pair));
  });
}

template <typename T>
void Normalise(const NormaliseArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  ForEachPair(shape, [&](int64_t pair, int64_t batch, int64_t head) {
    const Rows<const T> q = RowsOf(args.q, batch, head);
    const Rows<const T> k = RowsOf(args.k, batch, head);
    const Rows<T> o = RowsOf(args.output, batch, head);
    const Rows<T> denominators = NumbersOf(shape, args.denominators, batch, head);
    RowSum<T> sum(shape.key_size, SumOf(shape, args.sum_in, pair));
    for (int64_t token = 0; token < shape.tokens; ++token) {
      if (StartsAt(shape, batch, token)) {
        sum.Clear();
      }
      sum.Add(k.At(token));
      const double denominator = sum.Dot(q.At(token)) + kDenominatorEpsilon;
      *denominators.At(token) = static_cast<T>(denominator);
      T* const row = o.At(token);
      std::transform(row, row + shape.value_size, row,
                     [&](T x) { return static_cast<T>(x / denominator); });
    }
  });
}

template <typename T>
void SplitGradient(const SplitGradientArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  ForEachPair(shape, [&](int64_t /*pair*/, int64_t batch, int64_t head) {
    const Rows<const T> o = RowsOf(args.output, batch, head);
    const Rows<T> gradient = RowsOf(args.gradient, batch, head);
    const Rows<T> denominators = NumbersOf(shape, args.denominators, batch, head);
    for (int64_t token = 0; token < shape.tokens; ++token) {
      const double inverse = 1.0 / *denominators.At(token);
      const T* const output = o.At(token);
      T* const row = gradient.At(token);
      double dot = 0;
      for (int64_t c = 0; c < shape.value_size; ++c) {
        dot += static_cast<double>(row[c]) * output[c];
        row[c] = static_cast<T>(row[c] * inverse);
      }
      *denominators.At(token) = static_cast<T>(-dot * inverse);
    }
  });
}

template <typename T>
void QuerySum(const QuerySumArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  ForEachPair(shape, [&](int64_t pair, int64_t batch, int64_t head) {
    const Rows<const T> q = RowsOf(args.q, batch, head);
    const Rows<const T> e = NumbersOf(shape, args.denominator_gradient, batch, head);
    RowSum<T> sum(shape.key_size, nullptr);
    // As AddKeyGradients goes, from the last of the first document.
    for (int64_t token = FirstStart(shape, batch) - 1; token >= 0; --token) {
      sum.Add(*e.At(token), q.At(token));
    }
    sum.Store(SumOf(shape, args.sum, pair));
  });
}

template <typename T>
void AddQueryGradients(const NormaliserQueryGradientArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  ForEachPair(shape, [&](int64_t pair, int64_t batch, int64_t head) {
    const Rows<const T> k = RowsOf(args.k, batch, head);
    const Rows<const T> e = NumbersOf(shape, args.denominator_gradient, batch, head);
    const Rows<T> gradient = RowsOf(args.q_gradient, batch, head);
    RowSum<T> sum(shape.key_size, SumOf(shape, args.sum_in, pair));
    for (int64_t token = 0; token < shape.tokens; ++token) {
      if (StartsAt(shape, batch, token)) {
        sum.Clear();
      }
      sum.Add(k.At(token));
      sum.AddTo(*e.At(token), gradient.At(token));
    }
  });
}

template <typename T>
void AddKeyGradients(const NormaliserKeyGradientArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  ForEachPair(shape, [&](int64_t pair, int64_t batch, int64_t head) {
    const Rows<T> gradient = RowsOf(args.k_gradient, batch, head);
    RowSum<T> sum(shape.key_size, SumOf(shape, args.sum_gradient_in, pair));
    for (int64_t token = shape.tokens - 1; token >= 0; --token) {
      if (args.q.data != nullptr) {
        sum.Add(*NumbersOf(shape, args.denominator_gradient, batch, head).At(token),
                RowsOf(args.q, batch, head).At(token));
      }
      sum.AddTo(1, gradient.At(token));
      if (StartsAt(shape, batch, token)) {
        sum.Clear();
      }
    }
  });
}

#define LASP_INSTANTIATE(T)                                                  \
  template void KeySum<T>(const KeySumArgs<T>&);                             \
  template void Normalise<T>(const NormaliseArgs<T>&);                       \
  template void SplitGradient<T>(const SplitGradientArgs<T>&);               \
  template void QuerySum<T>(const QuerySumArgs<T>&);                         \
  template void AddQueryGradients<T>(const NormaliserQueryGradientArgs<T>&); \
  template void AddKeyGradients<T>(const NormaliserKeyGradientArgs<T>&);
LASP_INSTANTIATE(float)
LASP_INSTANTIATE(double)
#undef LASP_INSTANTIATE

}  // namespace lasp::kernels::cpu
