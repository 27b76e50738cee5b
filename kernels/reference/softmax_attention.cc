#include "kernels/reference/softmax_attention.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <limits>

namespace lasp::kernels::reference {
namespace {

size_t QueryAt(const SoftmaxAttention& x, int64_t batch, int64_t head, int64_t token) {
  return static_cast<size_t>(((batch * x.queries + token) * x.heads + head) * x.size);
}

size_t KeyAt(const SoftmaxAttention& x, int64_t batch, int64_t head, int64_t token) {
  const int64_t group = x.heads / x.kv_heads;
  return static_cast<size_t>(((batch * x.keys + token) * x.kv_heads + head / group) * x.size);
}

double Dot(const double* a, const double* b, int64_t size) {
  double sum = 0;
  for (int64_t c = 0; c < size; ++c) {
    sum += a[c] * b[c];
  }
  return sum;
}

// The key at which the document of query i starts.
int64_t StartOf(const SoftmaxAttention& x, int64_t batch, int64_t token) {
  int64_t start = 0;
  if (!x.starts.empty()) {
    for (const int64_t at : x.starts[static_cast<size_t>(batch)]) {
      start = at <= x.offset + token ? at : start;
    }
  }
  return start;
}

// s_i over the keys up to query i; minus infinity where it does not see one.
std::vector<double> Scores(const SoftmaxAttention& x, int64_t batch, int64_t head, int64_t token) {
  std::vector<double> scores;
  const int64_t start = StartOf(x, batch, token);
  for (int64_t j = 0; j < x.keys && j <= x.offset + token; ++j) {
    if (j < start) {
      scores.push_back(-std::numeric_limits<double>::infinity());
      continue;
    }
    scores.push_back(Dot(x.q.data() + QueryAt(x, batch, head, token),
                         x.k.data() + KeyAt(x, batch, head, j), x.size) /
                     std::sqrt(static_cast<double>(x.size)));
  }
  return scores;
}

double LogSum(const std::vector<double>& scores) {
  const double highest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (const double score : scores) {
    sum += std::exp(score - highest);
  }
  return highest + std::log(sum);
}

template <typename Body>
void ForEachQuery(const SoftmaxAttention& x, const Body& body) {
  for (int64_t batch = 0; batch < x.batch; ++batch) {
    for (int64_t head = 0; head < x.heads; ++head) {
      for (int64_t token = 0; token < x.queries; ++token) {
        body(batch, head, token);
      }
    }
  }
}

}  // namespace

SoftmaxAttentionResult SoftmaxAttentionForward(const SoftmaxAttention& x) {
  SoftmaxAttentionResult result;
  result.output.resize(x.q.size());
  ForEachQuery(x, [&](int64_t batch, int64_t head, int64_t token) {
    const std::vector<double> scores = Scores(x, batch, head, token);
    const double log_sum = LogSum(scores);
    result.log_sums.push_back(log_sum);
    for (size_t j = 0; j < scores.size(); ++j) {
      const double* const v = x.v.data() + KeyAt(x, batch, head, static_cast<int64_t>(j));
      for (int64_t c = 0; c < x.size; ++c) {
        result.output[QueryAt(x, batch, head, token) + static_cast<size_t>(c)] +=
            std::exp(scores[j] - log_sum) * v[c];
      }
    }
  });
  return result;
}

SoftmaxAttentionGradients SoftmaxAttentionBackward(const SoftmaxAttention& x,
                                                   const std::vector<double>& output_gradient) {
  SoftmaxAttentionGradients out;
  out.q.resize(x.q.size());
  out.k.resize(x.k.size());
  out.v.resize(x.v.size());
  const double scale = 1 / std::sqrt(static_cast<double>(x.size));
  ForEachQuery(x, [&](int64_t batch, int64_t head, int64_t token) {
    const std::vector<double> scores = Scores(x, batch, head, token);
    const double log_sum = LogSum(scores);
    const size_t at = QueryAt(x, batch, head, token);
    // dp_j, and their mean under p.
    std::vector<double> weight_gradients;
    double mean = 0;
    for (size_t j = 0; j < scores.size(); ++j) {
      const size_t key = KeyAt(x, batch, head, static_cast<int64_t>(j));
      weight_gradients.push_back(Dot(output_gradient.data() + at, x.v.data() + key, x.size));
      mean += std::exp(scores[j] - log_sum) * weight_gradients[j];
    }
    for (size_t j = 0; j < scores.size(); ++j) {
      const size_t key = KeyAt(x, batch, head, static_cast<int64_t>(j));
      const double weight = std::exp(scores[j] - log_sum);
      const double score_gradient = weight * (weight_gradients[j] - mean);
      for (size_t c = 0; c < static_cast<size_t>(x.size); ++c) {
        out.v[key + c] += weight * output_gradient[at + c];
        out.q[at + c] += scale * score_gradient * x.k[key + c];
        out.k[key + c] += scale * score_gradient * x.q[at + c];
      }
    }
  });
  return out;
}

std::vector<double> Rotated(const std::vector<double>& x, int64_t tokens, int64_t heads,
                            int64_t size, int64_t first_position, double base) {
  std::vector<double> y(x.size());
  const auto half = static_cast<size_t>(size / 2);
  for (size_t head = 0; head * 2 * half < x.size(); ++head) {
    const int64_t token = static_cast<int64_t>(head) / heads % tokens;
    for (size_t c = 0; c < half; ++c) {
      const double angle = static_cast<double>(first_position + token) *
                           std::pow(base, -static_cast<double>(2 * c) / static_cast<double>(size));
      const size_t at = head * 2 * half + c;
      const auto turned = std::complex<double>(x[at], x[at + half]) * std::polar(1.0, angle);
      y[at] = turned.real();
      y[at + half] = turned.imag();
    }
  }
  return y;
}

}  // namespace lasp::kernels::reference
