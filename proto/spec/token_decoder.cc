#include "proto/spec/token_decoder.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace lasp {
namespace {

template <typename Stored>
StrayToken Decode(const char* bytes, int64_t count, int64_t vocab_size, int32_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    Stored stored;
    std::memcpy(&stored, bytes + i * static_cast<int64_t>(sizeof(Stored)), sizeof(Stored));
    // NOLINTNEXTLINE(bugprone-signed-char-misuse): a negative token must stay one, to be refused
    const auto token = static_cast<int64_t>(stored);
    if (token < 0 || token >= vocab_size) {
      return {i, token};
    }
    out[i] = static_cast<int32_t>(token);
  }
  return {};
}

}  // namespace

StrayToken DecodeTokens(TokenType type, const char* bytes, int64_t count, int64_t vocab_size,
                        int32_t* out) {
  switch (type) {
    case TokenType::kUint8:
      return Decode<uint8_t>(bytes, count, vocab_size, out);
    case TokenType::kInt8:
      return Decode<int8_t>(bytes, count, vocab_size, out);
    case TokenType::kUint16:
      return Decode<uint16_t>(bytes, count, vocab_size, out);
    case TokenType::kInt16:
      return Decode<int16_t>(bytes, count, vocab_size, out);
    case TokenType::kUint32:
      return Decode<uint32_t>(bytes, count, vocab_size, out);
    case TokenType::kInt32:
      return Decode<int32_t>(bytes, count, vocab_size, out);
    case TokenType::kInt64:
      return Decode<int64_t>(bytes, count, vocab_size, out);
  }
  return {};
}

absl::Status StrayTokenError(const CorpusFile& file, int64_t position, int64_t token,
                             int64_t vocab_size) {
  return absl::InvalidArgumentError(absl::StrCat(
      file.path, ": token ", position, " is ", token, ", outside the vocabulary of ", vocab_size,
      ": raise spec.model.vocab_size, or set spec.data.format to what the file is"));
}

}  // namespace lasp
