#include "worker/data/corpus.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/spec/unique_fd.h"
#include "tests/proto/corpus_fixture.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "worker/data/sigbus_guard.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::CountingTokens;
using ::lasp::testing::RawTokens;
using ::lasp::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class CorpusTest : public ::testing::Test {
 protected:
  std::unique_ptr<Corpus> Open(const std::vector<std::string>& names, v1::DataSpec::Format format,
                               int64_t vocab_size = 256) {
    auto corpus = Corpus::Open(names, format, vocab_size, {temp_.path()});
    LASP_EXPECT_OK(corpus);
    return corpus.ok() ? *std::move(corpus) : nullptr;
  }

  static absl::StatusOr<std::vector<int64_t>> Tokens(const Corpus& corpus, int64_t begin,
                                                     int64_t count) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    absl::Status status = corpus.Read(begin, count, tokens.data());
    if (!status.ok()) {
      return status;
    }
    return std::vector<int64_t>(tokens.begin(), tokens.end());
  }

  lasp::testing::TempDirectory temp_;
};

TEST_F(CorpusTest, FilesAreOneStreamWhateverTheFormat) {
  const std::vector<int64_t> tokens = CountingTokens(7, 256);
  const std::vector<int64_t> expected = {0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6};
  temp_.Write("a.bytes", RawTokens<uint8_t>(tokens));
  temp_.Write("a.u16", RawTokens<uint16_t>(tokens));
  temp_.Write("a.llmc16", lasp::testing::LlmcShard16(tokens));
  temp_.Write("a.llmc32", lasp::testing::LlmcShard32(tokens));
  temp_.Write("m.idx", lasp::testing::Megatron({3, 0, 4}, 8, 5).Index());
  temp_.Write("m.bin", RawTokens<int64_t>(tokens));
  const std::vector<std::pair<std::vector<std::string>, v1::DataSpec::Format>> corpora = {
      {{"a.bytes", "a.bytes"}, v1::DataSpec::FORMAT_BYTES},
      {{"a.u16", "a.u16"}, v1::DataSpec::FORMAT_UINT16},
      {{"a.llmc16", "a.llmc32"}, v1::DataSpec::FORMAT_LLMC},
      {{"m", "m.bin"}, v1::DataSpec::FORMAT_MEGATRON}};
  for (const auto& [names, format] : corpora) {
    SCOPED_TRACE(names[0]);
    const auto corpus = Open(names, format);
    ASSERT_NE(corpus, nullptr);
    ASSERT_EQ(corpus->token_count(), 14);
    // Every range, also across the border.
    for (int64_t begin = 0; begin <= 14; ++begin) {
      for (int64_t end = begin; end <= 14; ++end) {
        const auto read = Tokens(*corpus, begin, end - begin);
        LASP_ASSERT_OK(read);
        EXPECT_EQ(*read, std::vector<int64_t>(expected.begin() + begin, expected.begin() + end));
      }
    }
    EXPECT_THAT(Tokens(*corpus, 14, 1), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("14")));
    EXPECT_THAT(Tokens(*corpus, -1, 1), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("-1")));
  }
}

TEST_F(CorpusTest, MegatronsWideAndNegativeTokensMeetTheVocabulary) {
  const std::vector<int64_t> tokens = {5, -1, int64_t{1} << 40};
  temp_.Write("m.bin", RawTokens<int64_t>(tokens));
  temp_.Write("m.idx", lasp::testing::Megatron({3}, 8, 5).Index());
  const auto corpus = Open({"m"}, v1::DataSpec::FORMAT_MEGATRON);
  LASP_EXPECT_OK(Tokens(*corpus, 0, 1));
  EXPECT_THAT(Tokens(*corpus, 0, 2), StatusIs(kInvalid, HasSubstr("token 1 is -1")));
  EXPECT_THAT(Tokens(*corpus, 2, 1), StatusIs(kInvalid, HasSubstr("token 2 is 1099511627776")));
}

TEST_F(CorpusTest, ATokenOutsideTheVocabularyIsNamed) {
  std::vector<int64_t> tokens(40'000, 7);
  tokens[33'333] = 300;
  temp_.Write("first.u16", RawTokens<uint16_t>(CountingTokens(10, 256)));
  temp_.Write("stray.u16", RawTokens<uint16_t>(tokens));
  const auto corpus = Open({"first.u16", "stray.u16"}, v1::DataSpec::FORMAT_UINT16);
  LASP_EXPECT_OK(Tokens(*corpus, 0, 33'343));
  EXPECT_THAT(Tokens(*corpus, 0, 40'010),
              StatusIs(kInvalid,
                       AllOf(HasSubstr("stray.u16"), HasSubstr("token 33333 is 300"),
                             HasSubstr("vocabulary of 256"), HasSubstr("spec.model.vocab_size"))));
}

TEST_F(CorpusTest, AShrunkFileIsAnErrorAndNoSigbus) {
  const std::string path = temp_.Write("a.bytes", std::string(1 << 20, 'x'));
  const auto corpus = Open({"a.bytes"}, v1::DataSpec::FORMAT_BYTES);
  LASP_EXPECT_OK(Tokens(*corpus, 0, 100));
  ASSERT_EQ(truncate(path.c_str(), 5000), 0);
  for (const int64_t begin : {int64_t{0}, int64_t{4096}, int64_t{900'000}}) {
    EXPECT_THAT(Tokens(*corpus, begin, 100),
                StatusIs(kDataLoss, AllOf(HasSubstr("a.bytes"), HasSubstr("1048576 to 5000"))));
  }
  ASSERT_EQ(truncate(path.c_str(), 0), 0);
  EXPECT_THAT(Tokens(*corpus, 0, 1 << 20), StatusIs(kDataLoss, HasSubstr("a.bytes")));
}

TEST_F(CorpusTest, AGrownFileIsAnError) {
  const std::string path = temp_.Write("a.bytes", "0123456789");
  const auto corpus = Open({"a.bytes"}, v1::DataSpec::FORMAT_BYTES);
  std::ofstream(path, std::ios::app) << "more";
  EXPECT_THAT(Tokens(*corpus, 0, 5), StatusIs(kDataLoss, HasSubstr("10 to 14")));
}

TEST_F(CorpusTest, AFileModifiedInPlaceIsAnError) {
  const std::string path = temp_.Write("a.bytes", "0123456789");
  const timespec old[2] = {{.tv_sec = 1'000'000, .tv_nsec = 0},
                           {.tv_sec = 1'000'000, .tv_nsec = 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), old, 0), 0);
  const auto corpus = Open({"a.bytes"}, v1::DataSpec::FORMAT_BYTES);
  LASP_EXPECT_OK(Tokens(*corpus, 0, 5));
  std::fstream(path, std::ios::in | std::ios::out) << "X";
  EXPECT_THAT(Tokens(*corpus, 0, 5),
              StatusIs(kDataLoss, AllOf(HasSubstr("a.bytes"), HasSubstr("modified"))));
}

TEST_F(CorpusTest, ADeletedOrReplacedFileIsAnError) {
  const std::string path = temp_.Write("a.bytes", "0123456789");
  const auto corpus = Open({"a.bytes"}, v1::DataSpec::FORMAT_BYTES);
  std::filesystem::rename(temp_.Write("other.bytes", "9876543210"), path);
  EXPECT_THAT(Tokens(*corpus, 0, 5),
              StatusIs(kDataLoss, AllOf(HasSubstr("a.bytes"), HasSubstr("deleted or replaced"))));
}

// What a path names is looked up once: the link that a corpus was opened through is nobody's way
// into a running job.
TEST_F(CorpusTest, ALinkThatIsSwappedChangesNothing) {
  temp_.Write("a.bytes", "0123456789");
  temp_.Write("b.bytes", "9876543210");
  std::filesystem::create_symlink("a.bytes", temp_.Join("corpus"));
  const auto corpus = Open({"corpus"}, v1::DataSpec::FORMAT_BYTES);
  for (const char* target : {"b.bytes", "/etc/passwd", "nowhere"}) {
    std::filesystem::create_symlink(target, temp_.Join("other"));
    std::filesystem::rename(temp_.Join("other"), temp_.Join("corpus"));
    const auto tokens = Tokens(*corpus, 0, 3);
    LASP_ASSERT_OK(tokens);
    EXPECT_EQ(*tokens, (std::vector<int64_t>{'0', '1', '2'}));
  }
}

// A writer truncates and refills the file while threads read: every read either gives the tokens as
// they were or an error, and the process lives.
TEST_F(CorpusTest, AFileThatChangesUnderReadersNeverKills) {
  constexpr size_t kSize = 1 << 20;
  const std::string path = temp_.Write("a.bytes", std::string(kSize, 'x'));
  std::atomic<bool> failed = false;
  std::vector<std::unique_ptr<Corpus>> corpora;
  corpora.reserve(2);
  for (int i = 0; i < 2; ++i) {
    corpora.push_back(Open({"a.bytes"}, v1::DataSpec::FORMAT_BYTES));
  }
  std::vector<std::thread> readers;
  readers.reserve(2);
  for (const auto& corpus : corpora) {
    readers.emplace_back([&failed, &corpus] {
      std::vector<int32_t> tokens(kSize);
      while (!failed) {
        if (!corpus->Read(0, kSize, tokens.data()).ok()) {
          failed = true;
        } else {
          EXPECT_EQ(std::count(tokens.begin(), tokens.end(), 'x'),
                    static_cast<std::ptrdiff_t>(kSize));
        }
      }
    });
  }
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(ftruncate(fd.get(), i % 2 == 0 ? 100 : static_cast<off_t>(kSize)), 0);
  }
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_TRUE(failed);
}

TEST_F(CorpusTest, ThreadsReadAtOnce) {
  temp_.Write("a.u16", RawTokens<uint16_t>(CountingTokens(100'000, 50'000)));
  const auto corpus = Open({"a.u16"}, v1::DataSpec::FORMAT_UINT16, 50'000);
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&corpus, t] {
      std::vector<int32_t> tokens(20'000);
      for (int i = 0; i < 20; ++i) {
        const int64_t begin = (t * 7919 + i * 3001) % 80'000;
        LASP_ASSERT_OK(corpus->Read(begin, 20'000, tokens.data()));
        EXPECT_EQ(tokens[0], begin % 50'000);
        EXPECT_EQ(tokens[19'999], (begin + 19'999) % 50'000);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

// In a process of its own, whose limits the test may change.
TEST_F(CorpusTest, MoreFilesThanTheSoftLimitAllowsAreOpened) {
  std::vector<std::string> names;
  names.reserve(700);
  for (int i = 0; i < 700; ++i) {
    names.push_back(absl::StrCat("shard-", i));
    temp_.Write(names.back(), "x");
  }
  const auto open_with_limits = [&](rlim_t soft, rlim_t hard) {
    const rlimit limit = {.rlim_cur = soft, .rlim_max = hard};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
      _exit(3);
    }
    const auto corpus = Corpus::Open(names, v1::DataSpec::FORMAT_BYTES, 256, {temp_.path()});
    _exit(corpus.ok() && (*corpus)->token_count() == 700                         ? 0
          : absl::StrContains(corpus.status().message(), "this host allows 900") ? 1
                                                                                 : 2);
  };
  EXPECT_EXIT(open_with_limits(256, 2000), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(open_with_limits(256, 900), ::testing::ExitedWithCode(1), "");
}

// A job's held-out files are open beside those that it trains on.
TEST_F(CorpusTest, TheFilesOfTwoCorporaAreOpenAtOnce) {
  std::vector<std::string> names;
  names.reserve(1300);
  for (int i = 0; i < 1300; ++i) {
    names.push_back(absl::StrCat("shard-", i));
    temp_.Write(names.back(), "x");
  }
  const auto open_both = [&] {
    const rlimit limit = {.rlim_cur = 256, .rlim_max = 4000};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
      _exit(3);
    }
    const auto format = v1::DataSpec::FORMAT_BYTES;
    const auto train =
        Corpus::Open({names.begin(), names.begin() + 700}, format, 256, {temp_.path()});
    const auto eval = Corpus::Open({names.begin() + 700, names.end()}, format, 256, {temp_.path()});
    _exit(train.ok() && eval.ok() ? 0 : 1);
  };
  EXPECT_EXIT(open_both(), ::testing::ExitedWithCode(0), "");
}

TEST_F(CorpusTest, BadFilesAreRefusedAtOpen) {
  temp_.Write("short.bin", lasp::testing::LlmcShard16({1, 2, 3}).substr(0, 1027));
  EXPECT_THAT(Corpus::Open({"short.bin"}, v1::DataSpec::FORMAT_LLMC, 256, {temp_.path()}),
              StatusIs(kDataLoss, HasSubstr("short.bin")));
  EXPECT_THAT(Corpus::Open({"none"}, v1::DataSpec::FORMAT_BYTES, 256, {temp_.path()}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  EXPECT_THAT(Corpus::Open({}, v1::DataSpec::FORMAT_BYTES, 256, {temp_.path()}),
              StatusIs(kInvalid, HasSubstr("at least one file")));
}

TEST(SigbusGuardTest, ACopyOfAMissingPageFailsAndTheNextSucceeds) {
  constexpr size_t kPage = 65'536;  // the largest there is
  constexpr size_t kBytes = 4 * kPage;
  const lasp::testing::TempDirectory temp;
  const std::string path = temp.Write("page", std::string(kBytes, 'x'));
  const UniqueFd fd(open(path.c_str(), O_RDWR | O_CLOEXEC));
  void* const map = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, fd.get(), 0);
  ASSERT_NE(map, MAP_FAILED);
  ASSERT_EQ(ftruncate(fd.get(), kPage), 0);
  std::vector<char> out(kBytes);
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(CopyFromMapping(out.data(), map, out.size()));
    EXPECT_FALSE(CopyFromMapping(out.data(), static_cast<char*>(map) + 70'000, 10));
    EXPECT_TRUE(CopyFromMapping(out.data(), map, kPage));
  }
  munmap(map, kBytes);
}

TEST(SigbusGuardDeathTest, ASigbusOfSomethingElseStillKills) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto touch = [] {
    const lasp::testing::TempDirectory temp;
    const std::string path = temp.Write("page", std::string(4096, 'x'));
    const UniqueFd fd(open(path.c_str(), O_RDWR | O_CLOEXEC));
    void* const map = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd.get(), 0);
    char byte = 0;
    CopyFromMapping(&byte, map, 1);
    if (ftruncate(fd.get(), 0) == 0) {
      byte = *static_cast<volatile char*>(map);
    }
    _exit(byte);
  };
  EXPECT_DEATH(touch(), "");
}

}  // namespace
}  // namespace lasp::worker
