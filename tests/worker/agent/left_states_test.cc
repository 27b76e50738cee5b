#include "worker/agent/left_states.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "proto/checkpoint/left_state_folder.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/agent/rank_orders.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using testing::FenceOf;
using ::testing::HasSubstr;

TEST(LeftStatesTest, ExpiresAndRemovesWhatIsOlder) {
  const ::lasp::testing::TempDirectory folder;
  const std::string root = folder.Join("memory");
  LASP_ASSERT_OK(PrepareMemoryRoot(root));
  LASP_ASSERT_OK(PrepareMemoryRoot(root));
  LeftStates states(root);
  const auto leave = [&](const std::string& job, int64_t generation, absl::Duration now) {
    std::filesystem::create_directories(root + "/" + LeftStateFolder("uid-" + job, generation));
    states.Expect(FenceOf(job, generation, 0), now);
  };
  EXPECT_EQ(states.next_expiry(), absl::InfiniteDuration());
  leave("a", 9, absl::Seconds(0));
  leave("a", 10, absl::Seconds(5));
  leave("b", 1, absl::Seconds(7));
  states.RemoveOlder(FenceOf("a", 10, 0));
  EXPECT_FALSE(std::filesystem::exists(root + "/uid-a.gen-9"));
  EXPECT_TRUE(std::filesystem::exists(root + "/uid-a.gen-10"));
  EXPECT_EQ(states.next_expiry(), absl::Seconds(5) + LeftStates::kKept);
  states.Expire(states.next_expiry());
  EXPECT_FALSE(std::filesystem::exists(root + "/uid-a.gen-10"));
  EXPECT_TRUE(std::filesystem::exists(root + "/uid-b.gen-1"));
}

TEST(LeftStatesTest, AFolderThatOthersMayWriteIsNotUsed) {
  const ::lasp::testing::TempDirectory folder;
  const std::string root = folder.Join("memory");
  std::filesystem::create_directory(root);
  std::filesystem::permissions(root, std::filesystem::perms::all);
  EXPECT_THAT(PrepareMemoryRoot(root),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(root)));
  std::filesystem::remove(root);
  std::filesystem::create_directory_symlink("/tmp", root);
  EXPECT_FALSE(PrepareMemoryRoot(root).ok());
}

}  // namespace
}  // namespace lasp::worker
