// What one rank computes on in one micro-batch.
#pragma once

#include <cstdint>
#include <vector>

namespace lasp::worker {

// The label of a position that does not count (kernels::kIgnoredLabel).
inline constexpr int32_t kNoLabel = -1;

// This rank's slice of its replica's sequences: of each sequence of L tokens the SP rank p holds
// positions [p * L / P, (p + 1) * L / P). Labels are the tokens shifted by one before the split.
struct Batch {
  int64_t sequences = 0;        // the micro-batch size
  int64_t tokens_per_rank = 0;  // L / P
  std::vector<int32_t> tokens;  // [sequences, tokens_per_rank]
  std::vector<int32_t> labels;  // [sequences, tokens_per_rank]; kNoLabel where none counts
  int64_t label_count = 0;      // labels that count, of this rank alone
  // Of packed documents, in the whole macro-chunk: as DocumentMarksLayout says. Empty where none
  // starts in it.
  std::vector<uint64_t> document_marks = {};
  // With the first batch of a step from BatchPrefetcher: the labels of the whole step that count,
  // of this rank alone.
  int64_t step_label_count = 0;
};

}  // namespace lasp::worker
