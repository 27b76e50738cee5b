// A first look at a corpus's tokens, to refuse a wrong vocabulary before a job waits for its slots.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "proto/spec/corpus_file.h"

namespace lasp {

// The most common mistake shows in the first few thousand tokens; the ranks check every token they
// read.
inline constexpr int64_t kProbedTokens = 4096;

// INVALID_ARGUMENT where one of the first kProbedTokens tokens lies outside [0, vocab_size), or,
// for vocab_size <= 0, OK.
absl::Status ProbeVocabulary(const CorpusFile& file, int64_t vocab_size);

}  // namespace lasp
