// Bytes of corpora in every format, for tests to write down, cut short and falsify.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "proto/spec/llmc_header.h"

namespace lasp::testing {

template <typename T>
void AppendRaw(const T& value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename Stored>
std::string RawTokens(const std::vector<int64_t>& tokens) {
  std::string bytes;
  for (const int64_t token : tokens) {
    AppendRaw(static_cast<Stored>(token), &bytes);
  }
  return bytes;
}

// 0, 1, 2, … modulo `modulus`.
inline std::vector<int64_t> CountingTokens(int64_t count, int64_t modulus) {
  std::vector<int64_t> tokens;
  tokens.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(i % modulus);
  }
  return tokens;
}

inline std::string LlmcHeaderBytes(int32_t magic, int32_t version, int32_t count) {
  std::string bytes;
  AppendRaw(magic, &bytes);
  AppendRaw(version, &bytes);
  AppendRaw(count, &bytes);
  bytes.resize(kLlmcHeaderBytes, '\0');
  return bytes;
}

inline std::string LlmcShard16(const std::vector<int64_t>& tokens) {
  return LlmcHeaderBytes(kLlmcMagicUint16, kLlmcVersionUint16,
                         static_cast<int32_t>(tokens.size())) +
         RawTokens<uint16_t>(tokens);
}

inline std::string LlmcShard32(const std::vector<int64_t>& tokens) {
  return LlmcHeaderBytes(kLlmcMagicUint32, kLlmcVersionUint32,
                         static_cast<int32_t>(tokens.size())) +
         RawTokens<uint32_t>(tokens);
}

// The .idx of a Megatron corpus. `Megatron` fills it as Megatron does; tests change parts.
struct MegatronFixture {
  std::string magic = std::string("MMIDIDX\0\0", 9);
  uint64_t version = 1;
  uint8_t type = 8;
  std::vector<int32_t> lengths;
  std::vector<int64_t> offsets;
  std::vector<int64_t> documents;
  // What the header claims; -1 for the truth.
  int64_t claimed_sequences = -1;
  int64_t claimed_documents = -1;

  std::string Index() const {
    std::string bytes = magic;
    AppendRaw(version, &bytes);
    AppendRaw(type, &bytes);
    AppendRaw(static_cast<uint64_t>(claimed_sequences < 0 ? static_cast<int64_t>(lengths.size())
                                                          : claimed_sequences),
              &bytes);
    AppendRaw(static_cast<uint64_t>(claimed_documents < 0 ? static_cast<int64_t>(documents.size())
                                                          : claimed_documents),
              &bytes);
    for (const int32_t length : lengths) {
      AppendRaw(length, &bytes);
    }
    for (const int64_t offset : offsets) {
      AppendRaw(offset, &bytes);
    }
    for (const int64_t document : documents) {
      AppendRaw(document, &bytes);
    }
    return bytes;
  }
};

// Each sequence a document.
inline MegatronFixture Megatron(const std::vector<int32_t>& lengths, int64_t token_bytes,
                                uint8_t type) {
  MegatronFixture fixture;
  fixture.type = type;
  fixture.lengths = lengths;
  int64_t offset = 0;
  fixture.documents.push_back(0);
  for (const int32_t length : lengths) {
    fixture.offsets.push_back(offset);
    offset += length * token_bytes;
    fixture.documents.push_back(static_cast<int64_t>(fixture.offsets.size()));
  }
  return fixture;
}

}  // namespace lasp::testing
