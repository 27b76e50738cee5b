#include "worker/model/language_head.h"

#include <algorithm>

namespace lasp::worker {
namespace {

// Enough rows to keep a matrix product busy.
int64_t ChunkRows(const Backend& backend, int64_t rows, int64_t vocab_size) {
  return std::min(rows, std::max<int64_t>(64, backend.logits_at_a_time() / vocab_size));
}

}  // namespace

LanguageHead::LanguageHead(int64_t rows, int64_t vocab_size, Backend* backend, Arena& arena)
    : backend_(*backend),
      logits_(arena.Take(MemoryUse::kWorkspace, backend->activation_type(),
                         ChunkRows(*backend, rows, vocab_size), vocab_size)) {}

void LanguageHead::Run(Tensor hidden, Tensor weight, Tensor labels, double gradient_scale,
                       Tensor loss_sum, Tensor hidden_gradient, Tensor weight_gradient, bool adds) {
  for (int64_t begin = 0; begin < hidden.rows; begin += logits_.rows) {
    const int64_t rows = std::min(logits_.rows, hidden.rows - begin);
    const Tensor chunk = hidden.Rows(begin, rows);
    const Tensor logits = logits_.Rows(0, rows);
    backend_.Gemm(false, chunk, true, weight, 0, logits);
    if (hidden_gradient.empty()) {
      backend_.CrossEntropy(logits, labels.Rows(begin, rows), 0, Tensor{}, loss_sum);
      continue;
    }
    backend_.CrossEntropy(logits, labels.Rows(begin, rows), gradient_scale, logits, loss_sum);
    backend_.Gemm(true, logits, false, chunk, adds || begin > 0 ? 1 : 0, weight_gradient);
    backend_.Gemm(false, logits, false, weight, 0, hidden_gradient.Rows(begin, rows));
  }
}

}  // namespace lasp::worker
