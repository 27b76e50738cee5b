#include "server/log_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <future>
#include <utility>

#include "proto/rpc/error_details.h"
#include "server/log_line.h"
#include "server/log_remover.h"
#include "server/log_trimmer.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const LogKey kKey{.uid = "uid", .generation = 2, .rank = 1};

// Line `i` of a log: a second after the line before.
std::string Line(int i) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", absl::FromUnixSeconds(1'000'000 + i),
                          absl::UTCTimeZone()) +
         " line " + std::to_string(i) + "\n";
}

class LogStoreTest : public ::testing::Test {
 protected:
  std::vector<std::string> ReadAll(int64_t offset = 0, absl::Time since = absl::InfinitePast()) {
    std::vector<std::string> texts;
    while (true) {
      const LogPage page = store_->Read(kKey, offset, 100, since).value();
      for (const StoredLine& line : page.lines) {
        texts.push_back(line.text);
      }
      if (page.at_end) {
        return texts;
      }
      EXPECT_GT(page.next_offset, offset);
      if (page.next_offset <= offset) {
        return texts;
      }
      offset = page.next_offset;
    }
  }

  void Reopen() { store_ = std::make_unique<LogStore>(directory_.Join("logs"), 1'000, 300); }

  testing::TempDirectory directory_;
  std::unique_ptr<LogStore> store_ =
      std::make_unique<LogStore>(directory_.Join("logs"), 1'000, 300);
};

TEST_F(LogStoreTest, AppendsByOffsetAndTakesNothingTwice) {
  const std::string first = Line(1);
  const auto size = static_cast<int64_t>(first.size());
  EXPECT_EQ(store_->Append(kKey, 0, first).value(), size);
  EXPECT_EQ(store_->Append(kKey, 0, first).value(), size);
  EXPECT_EQ(store_->Append(kKey, 0, first + Line(2)).value(), 2 * size);
  EXPECT_EQ(store_->End(kKey).value(), 2 * size);
  EXPECT_THAT(ReadAll(), ElementsAre("line 1", "line 2"));
  EXPECT_THAT(ReadAll(size), ElementsAre("line 2"));
  const LogPage page = store_->Read(kKey, 0, 1'000).value();
  EXPECT_EQ(page.lines[1].offset, size);
  EXPECT_EQ(page.lines[1].time, absl::FromUnixSeconds(1'000'002));
}

TEST_F(LogStoreTest, AGapIsAskedForOnceThenTaken) {
  const std::string line = Line(1);
  const auto size = static_cast<int64_t>(line.size());
  store_->Append(kKey, 0, line).value();
  EXPECT_EQ(store_->Append(kKey, 500, Line(2)).value(), size) << "the end, to send again from";
  EXPECT_EQ(store_->Append(kKey, 500, Line(2)).value(), 500 + size) << "the agent has no more";
  EXPECT_THAT(ReadAll(), ElementsAre("line 1", "line 2"));
  EXPECT_THAT(ReadAll(store_->TailOffset(kKey, 1).value()), ElementsAre("line 2"));
}

// As after a rank has written terabytes while the coordinator was away.
TEST_F(LogStoreTest, AGapOfAnySizeCostsNothing) {
  constexpr int64_t kFar = int64_t{1} << 45;
  const auto size = static_cast<int64_t>(Line(1).size());
  store_->Append(kKey, 0, Line(1) + Line(2)).value();
  EXPECT_EQ(store_->Append(kKey, kFar, Line(3)).value(), 2 * size);
  EXPECT_EQ(store_->Append(kKey, kFar, Line(3)).value(), kFar + size);
  EXPECT_THAT(ReadAll(store_->TailOffset(kKey, 1).value()), ElementsAre("line 3"));
  EXPECT_THAT(ReadAll(store_->TailOffset(kKey, 9).value()),
              ElementsAre("line 1", "line 2", "line 3"));
}

TEST_F(LogStoreTest, SurvivesARestartAndACutLine) {
  store_->Append(kKey, 0, Line(1) + Line(2)).value();
  const std::string path = directory_.Join("logs/uid/gen-2/rank-1/0000000000000000.log");
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 3);
  Reopen();
  EXPECT_EQ(store_->End(kKey).value(), static_cast<int64_t>(Line(1).size()));
  store_->Append(kKey, static_cast<int64_t>(Line(1).size()), Line(2)).value();
  EXPECT_THAT(ReadAll(), ElementsAre("line 1", "line 2"));
}

TEST_F(LogStoreTest, TheOldestSegmentsGoFirst) {
  int64_t offset = 0;
  for (int i = 0; i < 100; ++i) {
    offset = store_->Append(kKey, offset, Line(i)).value();
  }
  const std::vector<std::string> texts = ReadAll();
  EXPECT_EQ(texts.back(), "line 99");
  EXPECT_GT(texts.size(), 20);
  EXPECT_LT(texts.size(), 45);
  Reopen();
  EXPECT_EQ(ReadAll(), texts);
}

TEST_F(LogStoreTest, TailAndSince) {
  int64_t offset = 0;
  for (int i = 0; i < 20; ++i) {
    offset = store_->Append(kKey, offset, Line(i)).value();
  }
  EXPECT_THAT(ReadAll(store_->TailOffset(kKey, 2).value()), ElementsAre("line 18", "line 19"));
  EXPECT_EQ(store_->TailOffset(kKey, 500).value(), 0);
  EXPECT_EQ(store_->TailOffset(kKey, 0).value(), offset);
  EXPECT_THAT(ReadAll(0, absl::FromUnixSeconds(1'000'018)), ElementsAre("line 18", "line 19"));
  EXPECT_THAT(ReadAll(0, absl::FromUnixSeconds(2'000'000)), IsEmpty());
}

TEST_F(LogStoreTest, FollowersAreToldAndDeletionIsWhole) {
  int told = 0;
  auto subscription = store_->Subscribe("uid", [&told] { ++told; });
  store_->Append(kKey, 0, Line(1)).value();
  store_->Append({.uid = "other", .generation = 1, .rank = 0}, 0, Line(1)).value();
  EXPECT_EQ(told, 1);
  EXPECT_THAT(store_->Ranks("uid", 2), ElementsAre(1));
  EXPECT_THAT(store_->Ranks("uid", 1), IsEmpty());
  store_->DeleteJob("uid");
  EXPECT_FALSE(std::filesystem::exists(directory_.Join("logs/uid")));
  EXPECT_EQ(store_->End(kKey).value(), 0);
  subscription = nullptr;
  store_->Append(kKey, 0, Line(1)).value();
  EXPECT_EQ(told, 1);
}

TEST_F(LogStoreTest, OddLines) {
  const std::string odd = std::string("no time\n\n") + std::string(2'000, 'x') + "\n" + Line(7);
  store_->Append(kKey, 0, odd).value();
  EXPECT_THAT(ReadAll(), ElementsAre("no time", "", std::string(2'000, 'x'), "line 7"));
  EXPECT_EQ(SplitLogLine("2026-13-99T00:00:00.000000Zx text").time, absl::UnixEpoch());
}

// As a full disk, or one that was mounted read-only, does.
TEST_F(LogStoreTest, AFileThatCannotBeUsedIsNamed) {
  const std::string segment = directory_.Join("logs/uid/gen-2/rank-1/0000000000000000.log");
  std::filesystem::create_directories(segment);
  const auto check = [&segment](const absl::Status& status) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr(segment)));
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("disk")));
    EXPECT_EQ(ErrorReason(status), "STORE_UNAVAILABLE");
  };
  check(store_->Append(kKey, 0, Line(1)).status());
  check(store_->Read(kKey, 0, 100).status());
  std::filesystem::remove(segment);
  EXPECT_TRUE(store_->Append(kKey, 0, Line(1)).ok());
}

TEST_F(LogStoreTest, AllLogsTogetherAreKeptWithinASize) {
  const std::string logs = directory_.Join("logs");
  const LogKey other{.uid = "other", .generation = 1, .rank = 0};
  const auto path = [&logs](const char* name) { return logs + "/" + name; };
  // Two files of one rank, older than one of another; each of ten lines.
  std::string ten;
  for (int i = 0; i < 10; ++i) {
    ten += Line(i);
  }
  const auto size = static_cast<int64_t>(ten.size());
  EXPECT_EQ(store_->Append(kKey, 0, ten).value(), size);
  EXPECT_EQ(store_->Append(kKey, size, ten).value(), 2 * size);
  EXPECT_EQ(store_->Append(other, 0, ten).value(), size);
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(logs)) {
    if (entry.is_regular_file()) {
      files.push_back(entry.path().string());
    }
  }
  std::sort(files.begin(), files.end());
  ASSERT_EQ(files.size(), 3u);
  EXPECT_EQ(files[0], path("other/gen-1/rank-0/0000000000000000.log"));
  const auto now = std::filesystem::file_time_type::clock::now();
  std::filesystem::last_write_time(files[0], now);
  std::filesystem::last_write_time(files[1], now - std::chrono::hours(2));
  std::filesystem::last_write_time(files[2], now - std::chrono::hours(1));

  TrimLogs(logs, 3 * size, store_.get());
  EXPECT_EQ(ReadAll().size(), 20u);
  TrimLogs(logs, 3 * size - 1, store_.get());
  EXPECT_EQ(ReadAll().size(), 10u);
  EXPECT_FALSE(std::filesystem::exists(files[1]));
  // The last file of a log too; what comes after it keeps its place.
  TrimLogs(logs, size, store_.get());
  EXPECT_THAT(ReadAll(), IsEmpty());
  EXPECT_EQ(store_->End(kKey).value(), 2 * size);
  EXPECT_EQ(store_->Append(kKey, 2 * size, Line(77)).value(),
            2 * size + static_cast<int64_t>(Line(77).size()));
  EXPECT_THAT(ReadAll(), ElementsAre("line 77"));
  EXPECT_THAT(ReadAll(store_->TailOffset(kKey, 5).value()), ElementsAre("line 77"));
  EXPECT_EQ(store_->End(other).value(), size);
  TrimLogs(directory_.Join("none"), 0, store_.get());
}

TEST(LogRemoverTest, NobodyWaitsForARemoval) {
  std::promise<void> all_asked;
  const std::shared_future<void> asked = all_asked.get_future();
  std::promise<bool> first;
  {
    LogRemover remover([&, is_first = true](const std::string& uid) mutable {
      if (std::exchange(is_first, false)) {
        EXPECT_EQ(uid, "a");
        first.set_value(asked.wait_for(std::chrono::seconds(30)) == std::future_status::ready);
      }
    });
    remover.Remove("a");
    remover.Remove("b");
    all_asked.set_value();
    EXPECT_TRUE(first.get_future().get()) << "it was removed before Remove returned";
  }
}

}  // namespace
}  // namespace lasp::server
