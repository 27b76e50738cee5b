#include "proto/spec/vocabulary_probe.h"

#include <algorithm>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "proto/spec/file_reader.h"
#include "proto/spec/token_decoder.h"

namespace lasp {

absl::Status ProbeVocabulary(const CorpusFile& file, int64_t vocab_size) {
  if (vocab_size <= 0 || file.type == TokenType::kUint8) {
    return absl::OkStatus();
  }
  const int64_t count = std::min(kProbedTokens, file.token_count);
  std::vector<char> bytes(static_cast<size_t>(count * TokenBytes(file.type)));
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  const FileReader reader(file.fd.get(), file.path, file.identity.size);
  LASP_RETURN_IF_ERROR(
      reader.ReadAt(file.data_offset, static_cast<int64_t>(bytes.size()), bytes.data()));
  const StrayToken stray = DecodeTokens(file.type, bytes.data(), count, vocab_size, tokens.data());
  if (stray.index >= 0) {
    return StrayTokenError(file, stray.index, stray.token, vocab_size);
  }
  return absl::OkStatus();
}

}  // namespace lasp
