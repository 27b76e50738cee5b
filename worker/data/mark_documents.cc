#include "worker/data/mark_documents.h"

#include <algorithm>
#include <cstddef>

namespace lasp::worker {

std::vector<uint64_t> MarkDocuments(const DocumentMarksLayout& layout,
                                    const std::vector<std::vector<int64_t>>& starts) {
  if (std::all_of(starts.begin(), starts.end(), [](const auto& of) { return of.empty(); })) {
    return {};
  }
  std::vector<uint64_t> words(static_cast<size_t>(layout.words()));
  // In rows of `tokens`, each from a word on.
  const auto mark = [&](int64_t begin, int64_t tokens, int64_t sequence, int64_t token) {
    const int64_t word = begin + sequence * DocumentMarksLayout::WordsOf(tokens) + token / 64;
    words[static_cast<size_t>(word)] |= uint64_t{1} << (token % 64);
  };
  const SequenceSlices& slices = layout.slices;
  for (int64_t sequence = 0; sequence < layout.sequences; ++sequence) {
    for (const int64_t token : starts[static_cast<size_t>(sequence)]) {
      const auto rank = static_cast<int>(token / slices.each);
      mark(layout.BeginOf(rank), slices.Of(rank), sequence, token - slices.Begin(rank));
      mark(layout.BeginOfWhole(), slices.total, sequence, token);
    }
  }
  return words;
}

}  // namespace lasp::worker
