// The logs of ranks: lines, files, shipping, collecting.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/agent/manual_clock.h"
#include "worker/agent/log_collector.h"
#include "worker/agent/log_folder.h"
#include "worker/agent/log_lines.h"
#include "worker/agent/log_shipper.h"
#include "worker/agent/rank_log.h"
#include "worker/agent/rank_logs.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::TempDirectory;
using ::testing::HasSubstr;
using testing::ManualClock;

constexpr size_t kChunk = 256 << 10;
const absl::Time kTime = absl::FromUnixMicros(1'700'000'000'123'456);
constexpr char kStamp[] = "2023-11-14T22:13:20.123456Z ";

TEST(LogLinesTest, StampsWholeLinesOnly) {
  LogLines lines;
  std::string out;
  lines.Add("one\ntw", kTime, &out);
  EXPECT_EQ(out, absl::StrCat(kStamp, "one\n"));
  lines.Add("o\n\n", kTime, &out);
  EXPECT_EQ(out, absl::StrCat(kStamp, "one\n", kStamp, "two\n", kStamp, "\n"));
  out.clear();
  lines.Finish(kTime, &out);
  EXPECT_EQ(out, "");
  lines.Add("end", kTime, &out);
  lines.Finish(kTime, &out);
  EXPECT_EQ(out, absl::StrCat(kStamp, "end\n"));
}

TEST(LogLinesTest, ReplacesWhatIsNotUtf8) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
      {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
      {"a\xff z", "a\xef\xbf\xbd z"},
      {"cut \xe2\x82", "cut \xef\xbf\xbd\xef\xbf\xbd"},
      {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                  // overlong
      {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},  // a surrogate
      {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
  };
  for (const auto& [raw, valid] : table) {
    EXPECT_EQ(FormatLogLine(raw, kTime), absl::StrCat(kStamp, valid, "\n"));
  }
}

TEST(LogLinesTest, SplitsLongLinesBetweenCharacters) {
  // Two bytes a character, beginning at an odd byte.
  std::string text = "x";
  while (text.size() < 3 * kMaxLineBytes) {
    text += "\xc3\xbc";
  }
  LogLines lines;
  std::string out;
  lines.Add(text, kTime, &out);
  lines.Finish(kTime, &out);
  std::string joined;
  for (absl::string_view line : absl::StrSplit(out, '\n', absl::SkipEmpty())) {
    line.remove_prefix(sizeof(kStamp) - 1);
    EXPECT_LE(line.size(), kMaxLineBytes);
    absl::StrAppend(&joined, line);
  }
  EXPECT_EQ(joined, text);
}

std::string Line(int number) {
  return FormatLogLine(absl::StrCat("line ", number, " ", std::string(50, 'x')), kTime);
}

class RankLogTest : public ::testing::Test {
 protected:
  std::shared_ptr<RankLog> Open(int64_t file_bytes = 1000, int files = 3) {
    return *RankLog::Open(folder_.Join("log"), {.file_bytes = file_bytes, .files = files});
  }

  TempDirectory folder_;
};

TEST_F(RankLogTest, OffsetsCountOverRotations) {
  const auto log = Open(1000, 100);
  std::string all;
  for (int i = 0; i < 100; ++i) {
    LASP_ASSERT_OK(log->Append(Line(i)));
    all += Line(i);
  }
  EXPECT_EQ(log->end(), static_cast<int64_t>(all.size()));
  std::string read;
  while (static_cast<int64_t>(read.size()) < log->end()) {
    const auto piece = log->Read(static_cast<int64_t>(read.size()), kChunk);
    LASP_ASSERT_OK(piece);
    ASSERT_EQ(piece->offset, static_cast<int64_t>(read.size()));
    ASSERT_EQ(piece->data.back(), '\n');
    read += piece->data;
  }
  EXPECT_EQ(read, all);
}

TEST_F(RankLogTest, KeepsSoManyFilesAndMarksWhatIsGone) {
  const auto log = Open(1000, 3);
  for (int i = 0; i < 100; ++i) {
    LASP_ASSERT_OK(log->Append(Line(i)));
  }
  int files = 0;
  int64_t bytes = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder_.Join("log"))) {
    ++files;
    bytes += static_cast<int64_t>(file.file_size());
  }
  EXPECT_EQ(files, 3);
  EXPECT_LT(bytes, 3 * 1200);
  const auto piece = log->Read(0, kChunk);
  LASP_ASSERT_OK(piece);
  EXPECT_GT(piece->offset, 0);
  const std::vector<std::string> lines = absl::StrSplit(piece->data, '\n');
  EXPECT_THAT(lines[0], HasSubstr(absl::StrCat("[", piece->offset + lines[0].size() + 1,
                                               " bytes of this log were dropped]")));
  // The bytes after the mark keep their numbers.
  const auto after = log->Read(piece->offset + static_cast<int64_t>(lines[0].size()) + 1, kChunk);
  LASP_ASSERT_OK(after);
  EXPECT_EQ(after->data, piece->data.substr(lines[0].size() + 1));
}

TEST_F(RankLogTest, ChunksEndWithALine) {
  const auto log = Open(1 << 20, 3);
  std::string all;
  for (int i = 0; i < 100; ++i) {
    all += Line(i);
  }
  LASP_ASSERT_OK(log->Append(all));
  const auto piece = log->Read(0, 1000);
  LASP_ASSERT_OK(piece);
  EXPECT_LE(piece->data.size(), 1000U);
  EXPECT_EQ(piece->data.back(), '\n');
  EXPECT_TRUE(absl::StartsWith(all, piece->data));
}

TEST_F(RankLogTest, SkipsHalfALineAtTheEndOfAKilledAgentsFile) {
  {
    const auto log = Open();
    LASP_ASSERT_OK(log->Append(Line(1)));
  }
  const std::string path = std::filesystem::directory_iterator(folder_.Join("log"))->path();
  std::ofstream(path, std::ios::app) << "half";
  const auto log = Open();
  log->Close();
  const auto whole = log->Read(0, kChunk);
  LASP_ASSERT_OK(whole);
  EXPECT_EQ(whole->data, Line(1));
  const auto rest = log->Read(static_cast<int64_t>(Line(1).size()), kChunk);
  LASP_ASSERT_OK(rest);
  EXPECT_EQ(rest->data, "");
  EXPECT_EQ(rest->offset, log->end());
}

TEST_F(RankLogTest, GoesOnInAnEmptyFileThatAKilledAgentLeft) {
  const std::string path = [this] {
    LASP_EXPECT_OK(Open()->Append(Line(1)));
    return std::filesystem::directory_iterator(folder_.Join("log"))->path();
  }();
  std::filesystem::resize_file(path, 0);
  const auto log = Open(1000, 1);
  LASP_ASSERT_OK(log->Append(Line(2)));
  const auto piece = log->Read(0, kChunk);
  LASP_ASSERT_OK(piece);
  EXPECT_EQ(piece->data, Line(2));
}

TEST_F(RankLogTest, FullDiskIsAnErrorAndLeavesWholeLines) {
  // The limit of a process's file size stands for the full disk.
  const auto log = Open(1 << 20, 3);
  LASP_ASSERT_OK(log->Append(Line(1)));
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit full = before;
  full.rlim_cur = Line(1).size() + 10;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &full);
  const absl::Status status = log->Append(Line(2));
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  LASP_ASSERT_OK(log->Append(Line(3)));
  EXPECT_EQ(log->Read(0, kChunk)->data, Line(1) + Line(3));
}

lasp::v1::Fence FenceOf(int rank) {
  lasp::v1::Fence fence;
  fence.set_training_job("projects/default/trainingJobs/job");
  fence.set_uid("uid");
  fence.set_generation(1);
  fence.set_rank(rank);
  return fence;
}

class LogShipperTest : public ::testing::Test {
 protected:
  FencedLog NewLog(int rank) { return {FenceOf(rank), *folder_.Create(FenceOf(rank))}; }

  TempDirectory directory_;
  LogFolder folder_{directory_.path(), {.file_bytes = 1 << 20, .files = 4}};
  ManualClock clock_;
};

TEST_F(LogShipperTest, SendsEachByteOnceInTurn) {
  LogShipper shipper(100 << 20, &clock_);
  const FencedLog a = NewLog(0);
  const FencedLog b = NewLog(1);
  shipper.Add(a);
  shipper.Add(b);
  const std::string long_text = FormatLogLine(std::string(60'000, 'x'), kTime);
  for (int i = 0; i < 10; ++i) {
    LASP_ASSERT_OK(a.log->Append(long_text));
  }
  LASP_ASSERT_OK(b.log->Append(Line(1)));
  std::map<int, std::string> got;
  std::vector<int> order;
  while (const auto chunk = shipper.Next()) {
    EXPECT_EQ(chunk->offset(), static_cast<int64_t>(got[chunk->fence().rank()].size()));
    EXPECT_LE(chunk->data().size(), kMaxLogChunkBytes);
    got[chunk->fence().rank()] += chunk->data();
    order.push_back(chunk->fence().rank());
  }
  // The flood of one did not keep the other's line back.
  EXPECT_EQ(order[1], 1);
  EXPECT_EQ(got[0].size(), 10 * long_text.size());
  EXPECT_EQ(got[1], Line(1));
  EXPECT_TRUE(shipper.AllSent());
}

TEST_F(LogShipperTest, KeepsToItsRate) {
  constexpr int64_t kRate = 100'000;
  LogShipper shipper(kRate, &clock_);
  const FencedLog log = NewLog(0);
  shipper.Add(log);
  for (int i = 0; i < 4'000; ++i) {
    LASP_ASSERT_OK(log.log->Append(Line(i)));
  }
  int64_t sent = 0;
  for (int tick = 0; tick < 100; ++tick) {
    while (const auto chunk = shipper.Next()) {
      sent += static_cast<int64_t>(chunk->data().size());
    }
    // A burst of a second, then the rate; a chunk may overdraw.
    EXPECT_LE(sent, kRate + tick * kRate / 50 + static_cast<int64_t>(kMaxLogChunkBytes));
    clock_.Advance(absl::Milliseconds(20));
  }
  EXPECT_GT(sent, 2 * kRate);
}

TEST_F(LogShipperTest, SendsAgainWhatMayNotHaveArrived) {
  LogShipper shipper(100 << 20, &clock_);
  const FencedLog log = NewLog(0);
  shipper.Add(log);
  LASP_ASSERT_OK(log.log->Append(Line(1)));
  ASSERT_TRUE(shipper.Next().has_value());
  ASSERT_FALSE(shipper.Next().has_value());
  shipper.BeginSession();
  EXPECT_EQ(shipper.Next()->offset(), 0);
  // Long enough on a stream that works: arrived.
  for (int i = 0; i < 3; ++i) {
    clock_.Advance(absl::Seconds(31));
    EXPECT_FALSE(shipper.Next().has_value());
  }
  LASP_ASSERT_OK(log.log->Append(Line(2)));
  shipper.BeginSession();
  EXPECT_EQ(shipper.Next()->data(), Line(2));
  // The coordinator knows better.
  shipper.SetPosition(FenceOf(0), 0);
  EXPECT_EQ(shipper.Next()->data(), Line(1) + Line(2));
}

TEST_F(LogShipperTest, ForgetsWhatIsShippedAndTakesUpWhatIsNot) {
  LogShipper shipper(100 << 20, &clock_);
  const FencedLog shipped = NewLog(0);
  const FencedLog unshipped = NewLog(1);
  shipper.Add(shipped);
  for (const FencedLog& log : {shipped, unshipped}) {
    LASP_ASSERT_OK(log.log->Append(Line(1)));
    log.log->Close();
  }
  EXPECT_EQ(folder_.Unshipped().size(), 2U);
  while (shipper.Next()) {
  }
  for (int i = 0; i < 3; ++i) {
    clock_.Advance(absl::Seconds(31));
    shipper.Next();
  }
  const std::vector<FencedLog> left = folder_.Unshipped();
  ASSERT_EQ(left.size(), 1U);
  EXPECT_EQ(left[0].fence.rank(), 1);
  EXPECT_TRUE(left[0].log->closed());
}

TEST_F(LogShipperTest, OldLogsAreRemoved) {
  const FencedLog log = NewLog(0);
  LASP_ASSERT_OK(log.log->Append(Line(1)));
  constexpr int64_t kPlenty = int64_t{1} << 40;
  folder_.RemoveOld(absl::Hours(1), kPlenty);
  EXPECT_TRUE(std::filesystem::exists(log.log->folder()));
  folder_.RemoveOld(-absl::Hours(1), kPlenty);
  EXPECT_TRUE(std::filesystem::exists(log.log->folder())) << "its rank still runs";
  log.log->Close();
  folder_.RemoveOld(-absl::Hours(1), kPlenty);
  EXPECT_FALSE(std::filesystem::exists(log.log->folder()));
}

TEST_F(LogShipperTest, TheOldestLogsMakeRoomWhereTheyAreTooLarge) {
  std::vector<FencedLog> logs;
  const auto now = std::filesystem::file_time_type::clock::now();
  for (int rank = 0; rank < 3; ++rank) {
    logs.push_back(NewLog(rank));
    LASP_ASSERT_OK(logs.back().log->Append(Line(1)));
  }
  // Rank 1's is the oldest that may go: rank 0 still runs.
  logs[1].log->Close();
  logs[2].log->Close();
  for (int rank = 0; rank < 3; ++rank) {
    const std::string folder = logs[static_cast<size_t>(rank)].log->folder();
    const auto written = now - std::chrono::hours(3 - rank);
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
      std::filesystem::last_write_time(file.path(), written);
    }
    std::filesystem::last_write_time(folder, written);
  }
  const auto exist = [&logs] {
    std::string digits;
    for (const FencedLog& log : logs) {
      digits += std::filesystem::exists(log.log->folder()) ? '1' : '0';
    }
    return digits;
  };
  folder_.RemoveOld(absl::Hours(24), 1 << 20);
  EXPECT_EQ(exist(), "111");
  int64_t bytes = 0;
  for (const auto& file : std::filesystem::directory_iterator(logs[2].log->folder())) {
    bytes += static_cast<int64_t>(file.file_size());
  }
  folder_.RemoveOld(absl::Hours(24), bytes);
  EXPECT_EQ(exist(), "101");
  folder_.RemoveOld(absl::Hours(24), 0);
  EXPECT_EQ(exist(), "100");
}

TEST_F(LogShipperTest, FenceCannotLeaveTheFolder) {
  lasp::v1::Fence fence = FenceOf(0);
  fence.set_uid("../../../tmp/elsewhere");
  const auto log = folder_.Create(fence);
  LASP_ASSERT_OK(log);
  EXPECT_EQ(std::filesystem::path((*log)->folder()).parent_path(), directory_.path());
}

TEST(LogCollectorTest, ReadsToTheEndOfEveryPipe) {
  TempDirectory directory;
  constexpr int kPipes = 8;
  std::vector<std::shared_ptr<RankLog>> logs;
  logs.reserve(kPipes);
  std::vector<std::thread> writers;
  LogCollector collector;
  for (int i = 0; i < kPipes; ++i) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    logs.push_back(*RankLog::Open(directory.Join(absl::StrCat(i)), {}));
    collector.Add(UniqueFd(ends[0]), logs.back());
    writers.emplace_back([writer = ends[1], i] {
      for (int line = 0; line < 1000; ++line) {
        const std::string text = absl::StrCat("pipe ", i, " line ", line, "\n");
        EXPECT_EQ(write(writer, text.data(), text.size()), static_cast<ssize_t>(text.size()));
      }
      EXPECT_EQ(write(writer, "last", 4), 4);
      close(writer);
    });
  }
  for (std::thread& writer : writers) {
    writer.join();
  }
  ASSERT_TRUE(collector.WaitUntilIdle(absl::Seconds(20)));
  for (int i = 0; i < kPipes; ++i) {
    EXPECT_TRUE(logs[static_cast<size_t>(i)]->closed());
    const auto text = logs[static_cast<size_t>(i)]->Read(0, kChunk);
    LASP_ASSERT_OK(text);
    const std::vector<std::string> lines = absl::StrSplit(text->data, '\n', absl::SkipEmpty());
    ASSERT_EQ(lines.size(), 1001U);
    EXPECT_TRUE(absl::EndsWith(lines[999], absl::StrCat("Z pipe ", i, " line 999")));
    EXPECT_TRUE(absl::EndsWith(lines[1000], "Z last"));
  }
}

}  // namespace
}  // namespace lasp::worker
