#include "proto/spec/corpus_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <limits>

#include "proto/spec/megatron_index.h"
#include "tests/proto/corpus_fixture.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"

namespace lasp {
namespace {

using ::testing::AllOf;
using testing::CountingTokens;
using ::testing::HasSubstr;
using testing::LlmcHeaderBytes;
using testing::LlmcShard16;
using testing::LlmcShard32;
using testing::Megatron;
using testing::MegatronFixture;
using testing::RawTokens;
using testing::StatusIs;
using testing::TempDirectory;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kNotFound = absl::StatusCode::kNotFound;

class CorpusFileTest : public ::testing::Test {
 protected:
  absl::StatusOr<CorpusFile> Open(const std::string& name, v1::DataSpec::Format format,
                                  CorpusCheck check = CorpusCheck::kFull) {
    return OpenCorpusFile(name, format, {temp_.path()}, check);
  }

  absl::StatusOr<CorpusFile> OpenAs(v1::DataSpec::Format format, const std::string& content) {
    temp_.Write("corpus.bin", content);
    return Open("corpus.bin", format);
  }

  absl::StatusOr<CorpusFile> OpenMegatron(const MegatronFixture& index, const std::string& data,
                                          CorpusCheck check = CorpusCheck::kFull) {
    temp_.Write("corpus.idx", index.Index());
    temp_.Write("corpus.bin", data);
    return Open("corpus", v1::DataSpec::FORMAT_MEGATRON, check);
  }

  TempDirectory temp_;
};

TEST_F(CorpusFileTest, BytesAreTokens) {
  const auto file = OpenAs(v1::DataSpec::FORMAT_BYTES, "hello");
  LASP_ASSERT_OK(file);
  EXPECT_EQ(file->token_count, 5);
  EXPECT_EQ(file->data_offset, 0);
  EXPECT_EQ(file->type, TokenType::kUint8);
  EXPECT_EQ(file->path, temp_.Join("corpus.bin"));
}

TEST_F(CorpusFileTest, Uint16HasNoHeader) {
  const auto file = OpenAs(v1::DataSpec::FORMAT_UINT16, RawTokens<uint16_t>({1, 2, 3}));
  LASP_ASSERT_OK(file);
  EXPECT_EQ(file->token_count, 3);
  EXPECT_EQ(file->type, TokenType::kUint16);
}

TEST_F(CorpusFileTest, LlmcShardsOfBothVersions) {
  const auto narrow = OpenAs(v1::DataSpec::FORMAT_LLMC, LlmcShard16({1, 50'256}));
  LASP_ASSERT_OK(narrow);
  EXPECT_EQ(narrow->token_count, 2);
  EXPECT_EQ(narrow->data_offset, 1024);
  EXPECT_EQ(narrow->type, TokenType::kUint16);
  const auto wide = OpenAs(v1::DataSpec::FORMAT_LLMC, LlmcShard32({1, 128'255, 3}));
  LASP_ASSERT_OK(wide);
  EXPECT_EQ(wide->token_count, 3);
  EXPECT_EQ(wide->type, TokenType::kUint32);
}

TEST_F(CorpusFileTest, MegatronOfEveryIntegerType) {
  const std::vector<std::pair<uint8_t, TokenType>> types = {
      {1, TokenType::kUint8}, {2, TokenType::kInt8},  {3, TokenType::kInt16},
      {4, TokenType::kInt32}, {5, TokenType::kInt64}, {8, TokenType::kUint16}};
  for (const auto& [code, type] : types) {
    SCOPED_TRACE(static_cast<int>(code));
    const int64_t width = TokenBytes(type);
    const auto file = OpenMegatron(Megatron({3, 0, 4}, width, code),
                                   std::string(static_cast<size_t>(7 * width), '\1'));
    LASP_ASSERT_OK(file);
    EXPECT_EQ(file->token_count, 7);
    EXPECT_EQ(file->type, type);
    EXPECT_EQ(file->path, temp_.Join("corpus.bin"));
  }
}

TEST_F(CorpusFileTest, MegatronIsNamedByItsBinOrItsPrefix) {
  LASP_EXPECT_OK(OpenMegatron(Megatron({2}, 2, 8), RawTokens<uint16_t>({1, 2})));
  LASP_EXPECT_OK(Open("corpus.bin", v1::DataSpec::FORMAT_MEGATRON));
  LASP_EXPECT_OK(Open(temp_.Join("corpus"), v1::DataSpec::FORMAT_MEGATRON));
  EXPECT_THAT(Open("corpus.idx", v1::DataSpec::FORMAT_MEGATRON),
              StatusIs(kNotFound, HasSubstr("corpus.idx.idx")));
}

TEST_F(CorpusFileTest, MegatronNeedsBothFiles) {
  LASP_EXPECT_OK(OpenMegatron(Megatron({2}, 2, 8), RawTokens<uint16_t>({1, 2})));
  std::filesystem::remove(temp_.Join("corpus.idx"));
  EXPECT_THAT(Open("corpus", v1::DataSpec::FORMAT_MEGATRON),
              StatusIs(kNotFound, HasSubstr("corpus.idx")));
  temp_.Write("corpus.idx", Megatron({2}, 2, 8).Index());
  std::filesystem::remove(temp_.Join("corpus.bin"));
  EXPECT_THAT(Open("corpus", v1::DataSpec::FORMAT_MEGATRON),
              StatusIs(kNotFound, HasSubstr("corpus.bin")));
}

TEST_F(CorpusFileTest, EmptyFilesAreRefusedInEveryFormat) {
  for (const auto format :
       {v1::DataSpec::FORMAT_BYTES, v1::DataSpec::FORMAT_LLMC, v1::DataSpec::FORMAT_UINT16}) {
    EXPECT_THAT(OpenAs(format, ""), StatusIs(kInvalid, HasSubstr("corpus.bin is empty")));
  }
  EXPECT_THAT(OpenMegatron(Megatron({0}, 2, 8), ""), StatusIs(kInvalid, HasSubstr("is empty")));
}

TEST_F(CorpusFileTest, OddSizesAreTruncations) {
  EXPECT_THAT(OpenAs(v1::DataSpec::FORMAT_UINT16, "abc"),
              StatusIs(kDataLoss, HasSubstr("3 bytes, not a multiple of 2")));
}

TEST_F(CorpusFileTest, FoldersAndFifosAreRefusedWithoutWaiting) {
  std::filesystem::create_directory(temp_.Join("folder"));
  ASSERT_EQ(mkfifo(temp_.Join("fifo").c_str(), 0600), 0);
  for (const auto format :
       {v1::DataSpec::FORMAT_BYTES, v1::DataSpec::FORMAT_LLMC, v1::DataSpec::FORMAT_UINT16}) {
    EXPECT_THAT(Open("folder", format), StatusIs(kInvalid, HasSubstr("is a folder")));
    EXPECT_THAT(Open("fifo", format), StatusIs(kInvalid, HasSubstr("not a regular file")));
  }
}

TEST_F(CorpusFileTest, LlmcHeadersAreHeldAgainstTheFile) {
  const std::string good = LlmcShard16(CountingTokens(10, 256));
  EXPECT_THAT(OpenAs(v1::DataSpec::FORMAT_LLMC, good.substr(0, 1000)),
              StatusIs(kDataLoss, HasSubstr("less than an llm.c header")));
  EXPECT_THAT(OpenAs(v1::DataSpec::FORMAT_LLMC, good.substr(0, good.size() - 1)),
              StatusIs(kDataLoss, AllOf(HasSubstr("says 10 tokens"), HasSubstr("truncated"))));
  EXPECT_THAT(OpenAs(v1::DataSpec::FORMAT_LLMC, good + "xx"),
              StatusIs(kDataLoss, HasSubstr("do not belong together")));
  EXPECT_THAT(OpenAs(v1::DataSpec::FORMAT_LLMC, good.substr(0, 1024)),
              StatusIs(kDataLoss, HasSubstr("the file holds 1024")));
  for (const int32_t count : {0, -1, std::numeric_limits<int32_t>::min()}) {
    EXPECT_THAT(OpenAs(v1::DataSpec::FORMAT_LLMC, LlmcHeaderBytes(20240520, 1, count) + "abcd"),
                StatusIs(kDataLoss, HasSubstr("its header says")));
  }
  EXPECT_THAT(OpenAs(v1::DataSpec::FORMAT_LLMC,
                     LlmcHeaderBytes(20240801, 7, std::numeric_limits<int32_t>::max()) + "abcd"),
              StatusIs(kDataLoss, HasSubstr("2147483647 tokens")));
}

TEST_F(CorpusFileTest, OtherLlmcVersionsAreRefused) {
  for (const auto& [magic, version] :
       std::vector<std::pair<int32_t, int32_t>>{{20240520, 7}, {20240801, 1}, {0, 1}, {-1, -1}}) {
    EXPECT_THAT(OpenAs(v1::DataSpec::FORMAT_LLMC, LlmcHeaderBytes(magic, version, 1) + "ab"),
                StatusIs(kInvalid, HasSubstr("no llm.c shard of a known version")));
  }
  EXPECT_THAT(OpenAs(v1::DataSpec::FORMAT_LLMC, std::string(4096, 'x')),
              StatusIs(kInvalid, HasSubstr("spec.data.format")));
}

TEST_F(CorpusFileTest, MegatronHeadersAreChecked) {
  const std::string data = RawTokens<uint16_t>({1, 2, 3});
  MegatronFixture bad = Megatron({3}, 2, 8);
  bad.magic[8] = 'x';
  EXPECT_THAT(OpenMegatron(bad, data), StatusIs(kInvalid, HasSubstr("no Megatron index")));
  bad = Megatron({3}, 2, 8);
  bad.version = 2;
  EXPECT_THAT(OpenMegatron(bad, data), StatusIs(kInvalid, HasSubstr("version 2")));
  for (const uint8_t type : std::vector<uint8_t>{0, 6, 7, 9, 255}) {
    EXPECT_THAT(OpenMegatron(Megatron({3}, 2, type), data),
                StatusIs(kInvalid, HasSubstr("token type")));
  }
  temp_.Write("corpus.idx", Megatron({3}, 2, 8).Index().substr(0, 33));
  EXPECT_THAT(Open("corpus", v1::DataSpec::FORMAT_MEGATRON),
              StatusIs(kDataLoss, HasSubstr("truncated")));
  temp_.Write("corpus.idx", "");
  EXPECT_THAT(Open("corpus", v1::DataSpec::FORMAT_MEGATRON),
              StatusIs(kDataLoss, HasSubstr("truncated")));
}

TEST_F(CorpusFileTest, MegatronCountsAreHeldAgainstTheIndex) {
  const std::string data = RawTokens<uint16_t>({1, 2, 3});
  for (const int64_t claim :
       {int64_t{0}, int64_t{2}, int64_t{1} << 40, std::numeric_limits<int64_t>::max()}) {
    MegatronFixture bad = Megatron({3}, 2, 8);
    bad.claimed_sequences = claim;
    EXPECT_THAT(OpenMegatron(bad, data), StatusIs(kDataLoss, HasSubstr("its header says")))
        << claim;
    bad = Megatron({3}, 2, 8);
    bad.claimed_documents = claim == 2 ? 3 : claim;
    EXPECT_THAT(OpenMegatron(bad, data), StatusIs(kDataLoss, HasSubstr("its header says")))
        << claim;
  }
  MegatronFixture none;
  EXPECT_THAT(OpenMegatron(none, data), StatusIs(kInvalid, HasSubstr("no sequence")));
}

TEST_F(CorpusFileTest, MegatronSequencesMustFollowEachOther) {
  const std::string data = RawTokens<uint16_t>({1, 2, 3, 4, 5});
  const auto with_offset = [](int64_t offset) {
    MegatronFixture index = Megatron({2, 3}, 2, 8);
    index.offsets[1] = offset;
    return index;
  };
  LASP_EXPECT_OK(OpenMegatron(with_offset(4), data));
  for (const int64_t offset :
       {int64_t{0}, int64_t{3}, int64_t{6}, int64_t{-4}, std::numeric_limits<int64_t>::max(),
        std::numeric_limits<int64_t>::min()}) {
    EXPECT_THAT(OpenMegatron(with_offset(offset), data),
                StatusIs(kDataLoss, HasSubstr("sequence 1 starts at byte")))
        << offset;
  }
  MegatronFixture bad = Megatron({2, 3}, 2, 8);
  bad.lengths[0] = -2;
  EXPECT_THAT(OpenMegatron(bad, data), StatusIs(kDataLoss, HasSubstr("length of -2")));
  bad = Megatron({2, 3}, 2, 8);
  bad.offsets[0] = 2;
  EXPECT_THAT(OpenMegatron(bad, data), StatusIs(kDataLoss, HasSubstr("sequence 0 starts")));
}

TEST_F(CorpusFileTest, MegatronDataMustBeWhatTheIndexNames) {
  const MegatronFixture index = Megatron({2, 3}, 2, 8);
  EXPECT_THAT(OpenMegatron(index, RawTokens<uint16_t>({1, 2, 3, 4})),
              StatusIs(kDataLoss, AllOf(HasSubstr("holds 8 bytes"), HasSubstr("names 10"))));
  EXPECT_THAT(OpenMegatron(index, RawTokens<uint16_t>({1, 2, 3, 4, 5, 6})),
              StatusIs(kDataLoss, HasSubstr("belongs to another corpus")));
}

TEST_F(CorpusFileTest, MegatronDocumentsMustAscendToTheLastSequence) {
  const std::string data = RawTokens<uint16_t>({1, 2, 3, 4, 5});
  for (const std::vector<int64_t>& documents : std::vector<std::vector<int64_t>>{
           {1, 1, 2}, {0, 2, 1}, {0, 3, 3}, {0, -1, 2}, {0, 1, 1 << 30}}) {
    MegatronFixture bad = Megatron({2, 3}, 2, 8);
    bad.documents = documents;
    EXPECT_THAT(OpenMegatron(bad, data), StatusIs(kDataLoss, HasSubstr("starts at sequence")));
  }
}

// An index of many sequences: the full check walks it, the quick one its ends.
TEST_F(CorpusFileTest, MegatronQuickCheckReadsBothEnds) {
  const int64_t count = 2 * kQuickSequences + 1000;
  const MegatronFixture good = Megatron(std::vector<int32_t>(static_cast<size_t>(count), 2), 1, 1);
  const std::string data(static_cast<size_t>(2 * count), 'x');
  for (const auto check : {CorpusCheck::kFull, CorpusCheck::kQuick}) {
    const auto file = OpenMegatron(good, data, check);
    LASP_ASSERT_OK(file);
    EXPECT_EQ(file->token_count, 2 * count);
  }
  MegatronFixture middle = good;
  middle.offsets[static_cast<size_t>(kQuickSequences + 500)] = 7;
  EXPECT_THAT(OpenMegatron(middle, data, CorpusCheck::kFull),
              StatusIs(kDataLoss, HasSubstr("starts at byte 7")));
  LASP_EXPECT_OK(OpenMegatron(middle, data, CorpusCheck::kQuick));
  for (const int64_t at : {int64_t{10}, count - 10}) {
    MegatronFixture end = good;
    end.offsets[static_cast<size_t>(at)] = 7;
    EXPECT_THAT(OpenMegatron(end, data, CorpusCheck::kQuick),
                StatusIs(kDataLoss, HasSubstr("starts at byte")));
  }
}

TEST_F(CorpusFileTest, ADeletedFileHasNoIdentity) {
  const auto file = OpenAs(v1::DataSpec::FORMAT_BYTES, "hello");
  LASP_ASSERT_OK(file);
  std::filesystem::remove(temp_.Join("corpus.bin"));
  EXPECT_THAT(IdentifyFile(file->fd.get(), file->path),
              StatusIs(kDataLoss, HasSubstr("deleted or replaced")));
}

}  // namespace
}  // namespace lasp
