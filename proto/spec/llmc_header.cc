#include "proto/spec/llmc_header.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"

namespace lasp {

absl::StatusOr<LlmcHeader> ReadLlmcHeader(const FileReader& reader) {
  if (reader.size() < kLlmcHeaderBytes) {
    return absl::DataLossError(absl::StrCat(reader.path(), " holds ", reader.size(),
                                            " bytes, less than an llm.c header of 1024: it is "
                                            "truncated or of another format"));
  }
  std::array<int32_t, 3> words{};
  LASP_RETURN_IF_ERROR(reader.ReadAt(0, sizeof(words), words.data()));
  const auto [magic, version, count] = words;
  LlmcHeader header;
  if (magic == kLlmcMagicUint16 && version == kLlmcVersionUint16) {
    header.type = TokenType::kUint16;
  } else if (magic == kLlmcMagicUint32 && version == kLlmcVersionUint32) {
    header.type = TokenType::kUint32;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat(reader.path(), " is no llm.c shard of a known version (magic ", magic,
                     ", version ", version, "; known are ", kLlmcMagicUint16, " version ",
                     kLlmcVersionUint16, " and ", kLlmcMagicUint32, " version ", kLlmcVersionUint32,
                     "): set spec.data.format to what it is"));
  }
  header.token_count = count;
  if (count <= 0) {
    return absl::DataLossError(
        absl::StrCat(reader.path(), ": its header says ", count, " tokens: write the shard again"));
  }
  const int64_t expected = kLlmcHeaderBytes + header.token_count * TokenBytes(header.type);
  if (reader.size() != expected) {
    return absl::DataLossError(absl::StrCat(
        reader.path(), ": its header says ", count, " tokens, so ", expected,
        " bytes, but the file holds ", reader.size(),
        reader.size() < expected ? ": it is truncated, copy it again"
                                 : ": header and data do not belong together, write it again"));
  }
  return header;
}

}  // namespace lasp
