// Tokens as they lie in a file to the int32 that the model takes.
#pragma once

#include <cstdint>

#include "proto/spec/corpus_file.h"

namespace lasp {

// A token outside the vocabulary, and where it stands.
struct StrayToken {
  int64_t index = -1;  // -1: there is none
  int64_t token = 0;
};

// Decodes `count` tokens of `type` at `bytes` (need not be aligned) to `out`, and gives the first
// token outside [0, vocab_size); tokens after that one are not decoded.
StrayToken DecodeTokens(TokenType type, const char* bytes, int64_t count, int64_t vocab_size,
                        int32_t* out);

// INVALID_ARGUMENT that names the file, the position in it, the token and the vocabulary.
absl::Status StrayTokenError(const CorpusFile& file, int64_t position, int64_t token,
                             int64_t vocab_size);

}  // namespace lasp
