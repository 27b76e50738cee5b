#include "worker/data/document_starts.h"

#include <algorithm>
#include <cstddef>

#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

// Stay in the cache.
constexpr int64_t kPieceTokens = 16'384;

class StartsBehind final : public DocumentStarts {
 public:
  StartsBehind(const Corpus* corpus, int64_t end_token) : corpus_(*corpus), end_token_(end_token) {}

  absl::Status Find(int64_t begin, int64_t end, std::vector<int64_t>* starts) const override {
    starts->clear();
    std::vector<int32_t> tokens(static_cast<size_t>(std::min(kPieceTokens, end - begin)));
    for (int64_t at = begin; at < end; at += kPieceTokens) {
      const int64_t count = std::min(kPieceTokens, end - at);
      LASP_RETURN_IF_ERROR(corpus_.Read(at - 1, count, tokens.data()));
      for (int64_t i = 0; i < count; ++i) {
        if (tokens[static_cast<size_t>(i)] == end_token_) {
          starts->push_back(at + i);
        }
      }
    }
    return absl::OkStatus();
  }

 private:
  const Corpus& corpus_;
  const int64_t end_token_;
};

class IndexedStarts final : public DocumentStarts {
 public:
  explicit IndexedStarts(const Corpus* corpus) : corpus_(*corpus) {}

  absl::Status Find(int64_t begin, int64_t end, std::vector<int64_t>* starts) const override {
    return corpus_.FindIndexedDocuments(begin, end, starts);
  }

 private:
  const Corpus& corpus_;
};

}  // namespace

std::unique_ptr<DocumentStarts> CreateStartsBehind(const Corpus* corpus, int64_t end_token) {
  return std::make_unique<StartsBehind>(corpus, end_token);
}

std::unique_ptr<DocumentStarts> CreateIndexedStarts(const Corpus* corpus) {
  return std::make_unique<IndexedStarts>(corpus);
}

}  // namespace lasp::worker
