// What may wait for the controller: bounded by bytes where agents send it, and without a refusal
// for those who ask first.
#include "server/controller_inbox.h"

#include <gtest/gtest.h>

#include <vector>

#include "proto/rpc/clock.h"
#include "proto/rpc/error_details.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::_;
using Kind = ControllerInbox::Kind;

class ControllerInboxTest : public ::testing::Test {
 protected:
  static constexpr size_t kLimit = 10'000;

  absl::Status AddMessage(size_t bytes) {
    return inbox_.Add(Kind::kAgentMessage, bytes, [](JobEngine&) {});
  }

  // Inputs taken at once.
  size_t Take(size_t max_inputs, bool decide = true) {
    return inbox_.Take(decide, max_inputs, -absl::InfiniteDuration()).inputs.size();
  }

  ControllerInbox inbox_{{.max_commands = 2, .max_agent_bytes = kLimit}};
};

TEST_F(ControllerInboxTest, MessagesAreBoundedByTheirBytes) {
  LASP_EXPECT_OK(AddMessage(6'000));
  EXPECT_EQ(inbox_.agent_bytes(), 6'000U);
  EXPECT_TRUE(inbox_.AwaitRoom([] { FAIL() << "there was room"; }));
  LASP_EXPECT_OK(AddMessage(5'000));
  int resumed = 0;
  EXPECT_FALSE(inbox_.AwaitRoom([&resumed] { ++resumed; }));
  // Those that do not ask meet a limit too.
  LASP_EXPECT_OK(AddMessage(9'000));
  EXPECT_THAT(AddMessage(1), StatusIs(absl::StatusCode::kResourceExhausted, _));

  EXPECT_EQ(Take(10, /*decide=*/false), 0U) << "while the disk fails nothing is taken";
  EXPECT_EQ(Take(2), 2U);
  EXPECT_EQ(inbox_.agent_bytes(), 9'000U);
  EXPECT_EQ(resumed, 0) << "there is not room enough yet";
  EXPECT_EQ(Take(10), 1U);
  EXPECT_EQ(resumed, 1);
  EXPECT_EQ(inbox_.agent_bytes(), 0U);
  EXPECT_EQ(inbox_.agent_message_count(), 0U);
  Take(10);
  EXPECT_EQ(resumed, 1) << "each is called once";
}

TEST_F(ControllerInboxTest, ManySmallMessagesFillItToo) {
  int added = 0;
  while (inbox_.AwaitRoom([] {})) {
    LASP_ASSERT_OK(AddMessage(1));
    ++added;
  }
  EXPECT_EQ(added,
            (kLimit + ControllerInbox::kMinMessageBytes - 1) / ControllerInbox::kMinMessageBytes);
}

TEST_F(ControllerInboxTest, StreamsAreResumedInTheirOrderAndNotAllAtOnce) {
  constexpr int kStreams = 200;
  LASP_ASSERT_OK(AddMessage(kLimit));
  std::vector<int> resumed;
  for (int i = 0; i < kStreams; ++i) {
    EXPECT_FALSE(inbox_.AwaitRoom([&resumed, i] { resumed.push_back(i); }));
  }
  Take(1);
  EXPECT_GT(resumed.size(), 0U);
  EXPECT_LT(resumed.size(), static_cast<size_t>(kStreams));
  // The rest follows without anything else coming in, and without a wait.
  const absl::Duration start = SystemClock().Monotonic();
  for (int pass = 0; pass < kStreams && resumed.size() < kStreams; ++pass) {
    inbox_.Take(/*decide=*/true, 1, start + absl::Seconds(60));
  }
  EXPECT_LT(SystemClock().Monotonic() - start, absl::Seconds(30));
  std::vector<int> expected(kStreams);
  for (int i = 0; i < kStreams; ++i) {
    expected[static_cast<size_t>(i)] = i;
  }
  EXPECT_EQ(resumed, expected);
}

TEST_F(ControllerInboxTest, CommandsAreBoundedByTheirNumber) {
  const auto command = [this] { return inbox_.Add(Kind::kCommand, 0, [](JobEngine&) {}); };
  LASP_EXPECT_OK(command());
  LASP_EXPECT_OK(command());
  const absl::Status refused = command();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted, _));
  EXPECT_EQ(ErrorReason(refused), "OVERLOADED");
  LASP_EXPECT_OK(AddMessage(1));
  LASP_EXPECT_OK(inbox_.Add(Kind::kInternal, 0, [](JobEngine&) {}));
  EXPECT_EQ(Take(10), 4U);
  LASP_EXPECT_OK(command());
}

TEST_F(ControllerInboxTest, AfterTheStopNothingIsTakenIn) {
  LASP_ASSERT_OK(AddMessage(kLimit));
  bool resumed = false;
  EXPECT_FALSE(inbox_.AwaitRoom([&resumed] { resumed = true; }));
  inbox_.Stop();
  EXPECT_THAT(AddMessage(1), StatusIs(absl::StatusCode::kUnavailable, _));
  EXPECT_FALSE(inbox_.AwaitRoom([&resumed] { resumed = true; }));
  EXPECT_TRUE(inbox_.Take(/*decide=*/true, 10, absl::InfiniteDuration()).stopping);
  inbox_.Clear();
  EXPECT_FALSE(resumed);
}

}  // namespace
}  // namespace lasp::server
