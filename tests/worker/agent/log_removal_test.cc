// Logs that make room before the coordinator has them.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/agent/manual_clock.h"
#include "worker/agent/log_folder.h"
#include "worker/agent/log_lines.h"
#include "worker/agent/log_shipper.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::TempDirectory;
using testing::ManualClock;

class LogRemovalTest : public ::testing::Test {
 protected:
  // Of a rank that has ended.
  FencedLog EndedLog(int rank, int lines) {
    lasp::v1::Fence fence;
    fence.set_uid("uid-job");
    fence.set_generation(1);
    fence.set_rank(rank);
    FencedLog log{fence, *folder_.Create(fence)};
    for (int line = 0; line < lines; ++line) {
      LASP_EXPECT_OK(log.log->Append(FormatLogLine(absl::StrCat("line ", line), absl::Now())));
    }
    log.log->Close();
    return log;
  }

  TempDirectory directory_;
  LogFolder folder_{directory_.path(), {.file_bytes = 1 << 20, .files = 4}};
  ManualClock clock_;
};

TEST_F(LogRemovalTest, WhatIsRemovedBeforeItWasSentIsCountedOnce) {
  LogShipper shipper(100 << 20, &clock_);
  const FencedLog removed = EndedLog(0, 10);
  const FencedLog kept = EndedLog(1, 1);
  const int64_t bytes = removed.log->end();
  shipper.Add(removed);
  shipper.Add(kept);
  std::filesystem::remove_all(removed.log->folder());
  const auto chunk = shipper.Next();
  ASSERT_TRUE(chunk.has_value());
  EXPECT_EQ(chunk->fence().rank(), 1);
  EXPECT_FALSE(shipper.Next().has_value());
  EXPECT_TRUE(shipper.AllSent());
  EXPECT_EQ(shipper.dropped_bytes(), bytes);
  // Neither a new stream nor the coordinator's wish brings it back.
  shipper.BeginSession();
  shipper.SetPosition(removed.fence, 0);
  while (shipper.Next().has_value()) {
  }
  EXPECT_TRUE(shipper.AllSent());
  EXPECT_EQ(shipper.dropped_bytes(), bytes);
}

TEST_F(LogRemovalTest, WhatWasSentOfItIsNotDropped) {
  LogShipper shipper(100 << 20, &clock_);
  const FencedLog log = EndedLog(0, 10);
  shipper.Add(log);
  ASSERT_TRUE(shipper.Next().has_value());
  std::filesystem::remove_all(log.log->folder());
  EXPECT_FALSE(shipper.Next().has_value());
  EXPECT_TRUE(shipper.AllSent());
  EXPECT_EQ(shipper.dropped_bytes(), 0);
}

TEST_F(LogRemovalTest, LogsThatTheCoordinatorHasMakeRoomFirst) {
  const FencedLog unshipped = EndedLog(0, 1);
  const FencedLog shipped = EndedLog(1, 1);
  LogFolder::MarkShipped(*shipped.log);
  // The one that is still to be sent is the older one.
  const auto written = std::filesystem::file_time_type::clock::now() - std::chrono::hours(2);
  int64_t bytes = 0;
  for (const auto& file : std::filesystem::directory_iterator(unshipped.log->folder())) {
    bytes += static_cast<int64_t>(file.file_size());
    std::filesystem::last_write_time(file.path(), written);
  }
  std::filesystem::last_write_time(unshipped.log->folder(), written);
  folder_.RemoveOld(absl::Hours(24), bytes);
  EXPECT_TRUE(std::filesystem::exists(unshipped.log->folder()));
  EXPECT_FALSE(std::filesystem::exists(shipped.log->folder()));
}

}  // namespace
}  // namespace lasp::worker
