// Thousands of damaged corpora: whatever a header says, opening it and reading what it promises
// ends with an answer, in bounded memory and inside the file. Most worth running with
// AddressSanitizer.
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "proto/spec/corpus_file.h"
#include "proto/spec/vocabulary_probe.h"
#include "tests/proto/corpus_fixture.h"
#include "tests/support/temp_directory.h"

namespace lasp {
namespace {

using testing::TempDirectory;

constexpr int kMutations = 4000;

// Numbers that parsers get wrong.
constexpr uint64_t kEvil[] = {0,
                              1,
                              0x7f,
                              0xff,
                              0x7fff,
                              0xffff,
                              0x7fffffff,
                              0x80000000,
                              0xffffffff,
                              0x7fffffffffffffff,
                              0x8000000000000000,
                              0xffffffffffffffff,
                              0x1555555555555555,
                              0x1fffffffffffffff};

std::string Mutate(std::string bytes, std::mt19937_64* random) {
  const auto below = [random](size_t bound) { return static_cast<size_t>((*random)() % bound); };
  const size_t changes = 1 + below(3);
  for (size_t i = 0; i < changes; ++i) {
    // Most of the meaning is in the first bytes.
    const size_t at =
        below(below(2) == 0 ? std::min<size_t>(bytes.size() + 1, 48) : bytes.size() + 1);
    switch (below(5)) {
      case 0:
        bytes.resize(at);
        break;
      case 1:
        bytes.insert(at, below(40), static_cast<char>((*random)()));
        break;
      case 2:
        if (at < bytes.size()) {
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        }
        break;
      default: {
        const uint64_t evil = kEvil[below(std::size(kEvil))];
        const size_t width = size_t{1} << below(4);
        if (at + width <= bytes.size()) {
          std::memcpy(bytes.data() + at, &evil, width);
        }
      }
    }
  }
  return bytes;
}

// A new file each time: some file systems flush a file that was cut to nothing and written again.
void Rewrite(const TempDirectory& temp, const std::string& name, const std::string& bytes) {
  std::filesystem::remove(temp.Join(name));
  temp.Write(name, bytes);
}

// Opens `name`, and when it passes reads its first and last token where the file says they are.
// Returns whether it passed.
bool OpenAndTouch(const TempDirectory& temp, const std::string& name, v1::DataSpec::Format format) {
  const auto file = OpenCorpusFile(name, format, {temp.path()}, CorpusCheck::kFull);
  if (!file.ok()) {
    EXPECT_NE(file.status().message().find(name.substr(0, 6)), absl::string_view::npos)
        << file.status();
    return false;
  }
  EXPECT_GT(file->token_count, 0);
  EXPECT_LE(file->data_offset + file->token_count * TokenBytes(file->type), file->identity.size);
  (void)ProbeVocabulary(*file, 256);
  return true;
}

TEST(CorpusMutationTest, LlmcHeaders) {
  const TempDirectory temp;
  std::mt19937_64 random(20240520);
  const std::string seeds[] = {testing::LlmcShard16(testing::CountingTokens(40, 256)),
                               testing::LlmcShard32(testing::CountingTokens(40, 256))};
  int passed = 0;
  for (int i = 0; i < kMutations; ++i) {
    Rewrite(temp, "corpus.bin", Mutate(seeds[i % 2], &random));
    passed += OpenAndTouch(temp, "corpus.bin", v1::DataSpec::FORMAT_LLMC) ? 1 : 0;
  }
  // Mutations of tokens and of the header's unused words are harmless; the rest must be caught.
  EXPECT_GT(passed, 0);
  EXPECT_LT(passed, kMutations);
}

TEST(CorpusMutationTest, MegatronIndices) {
  const TempDirectory temp;
  std::mt19937_64 random(8);
  const std::string index = testing::Megatron({3, 0, 5, 9, 1}, 2, 8).Index();
  temp.Write("corpus.bin", testing::RawTokens<uint16_t>(testing::CountingTokens(18, 256)));
  int passed = 0;
  for (int i = 0; i < kMutations; ++i) {
    Rewrite(temp, "corpus.idx", Mutate(index, &random));
    passed += OpenAndTouch(temp, "corpus", v1::DataSpec::FORMAT_MEGATRON) ? 1 : 0;
  }
  EXPECT_LT(passed, kMutations / 4);
}

TEST(CorpusMutationTest, AnyBytesInAnyFormat) {
  const TempDirectory temp;
  std::mt19937_64 random(1);
  for (int i = 0; i < kMutations / 4; ++i) {
    std::string bytes(random() % 3000, '\0');
    for (char& byte : bytes) {
      byte = static_cast<char>(random());
    }
    Rewrite(temp, "corpus.bin", bytes);
    Rewrite(temp, "corpus.idx", bytes);
    for (const auto format : {v1::DataSpec::FORMAT_BYTES, v1::DataSpec::FORMAT_UINT16,
                              v1::DataSpec::FORMAT_LLMC, v1::DataSpec::FORMAT_MEGATRON}) {
      OpenAndTouch(temp, "corpus.bin", format);
    }
  }
}

}  // namespace
}  // namespace lasp
