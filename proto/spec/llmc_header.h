// The header of llm.c's token shards: 256 int32, of which magic, version and token count matter.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "proto/spec/corpus_file.h"
#include "proto/spec/file_reader.h"

namespace lasp {

inline constexpr int64_t kLlmcHeaderBytes = 1024;
inline constexpr int32_t kLlmcMagicUint16 = 20240520;
inline constexpr int32_t kLlmcVersionUint16 = 1;
inline constexpr int32_t kLlmcMagicUint32 = 20240801;
inline constexpr int32_t kLlmcVersionUint32 = 7;

struct LlmcHeader {
  TokenType type = TokenType::kUint16;
  int64_t token_count = 0;
};

// INVALID_ARGUMENT for a file that is no shard, DATA_LOSS for one whose size is not what its header
// says.
absl::StatusOr<LlmcHeader> ReadLlmcHeader(const FileReader& reader);

}  // namespace lasp
