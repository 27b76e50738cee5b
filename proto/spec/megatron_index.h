// Megatron's .idx: which part of the .bin each sequence is.
//
//   "MMIDIDX\0\0"  u64 version (1)  u8 token type  u64 sequences S  u64 document indices D
//   int32 tokens[S]   int64 byte offset[S]   int64 first sequence of a document[D]
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "proto/spec/corpus_file.h"
#include "proto/spec/file_reader.h"

namespace lasp {

inline constexpr int64_t kMegatronHeaderBytes = 34;

struct MegatronIndex {
  TokenType type = TokenType::kUint16;
  // How large the .bin must be.
  int64_t data_bytes = 0;
  int64_t sequences = 0;
  int64_t documents = 0;
  // Where the tables of byte offsets and of documents lie.
  int64_t offsets_at = 0;
  int64_t documents_at = 0;
};

// Reads the index in constant memory. kQuick reads at most kQuickSequences at either end of a
// longer index. INVALID_ARGUMENT for another format, DATA_LOSS for an index that contradicts itself
// or its size: counts beyond the file, sequences that overlap, leave gaps or come before the data.
absl::StatusOr<MegatronIndex> ReadMegatronIndex(const FileReader& reader, CorpusCheck check);

inline constexpr int64_t kQuickSequences = int64_t{1} << 16;

}  // namespace lasp
