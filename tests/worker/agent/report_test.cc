// What must reach the coordinator: steps and exits, their order, their numbers, their limits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_directory.h"
#include "tests/worker/agent/manual_clock.h"
#include "worker/agent/outbox.h"
#include "worker/agent/report_buffer.h"

namespace lasp::worker {
namespace {

using lasp::v1::ConnectRequest;
using testing::ManualClock;

lasp::v1::Fence NewFence(const std::string& job) {
  lasp::v1::Fence fence;
  fence.set_training_job(job);
  return fence;
}

lasp::v1::StepMetrics Step(int64_t number) {
  lasp::v1::StepMetrics step;
  step.set_step(number);
  return step;
}

class ReportBufferTest : public ::testing::Test {
 protected:
  // Sends all that is due, a second apart, acknowledging each where asked.
  std::vector<ConnectRequest> SendAll(bool acknowledge) {
    std::vector<ConnectRequest> messages;
    for (int idle = 0; idle < 2;) {
      now_ += absl::Seconds(1);
      const auto message = buffer_.Next(now_, &next_sequence_);
      idle = message.has_value() ? 0 : idle + 1;
      if (message.has_value()) {
        messages.push_back(*message);
        if (acknowledge) {
          buffer_.Acknowledge(message->sequence());
        }
      }
    }
    return messages;
  }

  static std::vector<int64_t> Steps(const std::vector<ConnectRequest>& messages) {
    std::vector<int64_t> steps;
    for (const ConnectRequest& message : messages) {
      for (const auto& step : message.step_reports().steps()) {
        steps.push_back(step.step());
      }
    }
    return steps;
  }

  ReportBuffer buffer_{ReportLimits{.max_steps = 1000,
                                    .max_steps_a_message = 100,
                                    .max_unacknowledged_messages = 4,
                                    .interval = absl::Seconds(1)}};
  const lasp::v1::Fence fence_ = NewFence("a");
  absl::Duration now_ = absl::Hours(1);
  int64_t next_sequence_ = 1;
};

TEST_F(ReportBufferTest, BatchesOnceASecond) {
  buffer_.AddStep(fence_, Step(1));
  EXPECT_EQ(Steps({*buffer_.Next(now_, &next_sequence_)}), std::vector<int64_t>({1}));
  buffer_.AddStep(fence_, Step(2));
  buffer_.AddStep(fence_, Step(3));
  EXPECT_FALSE(buffer_.Next(now_ + absl::Milliseconds(999), &next_sequence_).has_value());
  EXPECT_EQ(buffer_.NextDue(), now_ + absl::Seconds(1));
  EXPECT_EQ(Steps({*buffer_.Next(now_ + absl::Seconds(1), &next_sequence_)}),
            std::vector<int64_t>({2, 3}));
}

TEST_F(ReportBufferTest, ExitComesAfterItsStepsAndAtOnce) {
  buffer_.AddStep(fence_, Step(1));
  ASSERT_TRUE(buffer_.Next(now_, &next_sequence_).has_value());
  buffer_.AddStep(fence_, Step(2));
  lasp::v1::RankExited exited;
  exited.set_step(2);
  buffer_.AddExit(exited);
  EXPECT_EQ(Steps({*buffer_.Next(now_, &next_sequence_)}), std::vector<int64_t>({2}));
  EXPECT_TRUE(buffer_.Next(now_, &next_sequence_)->has_rank_exited());
}

TEST_F(ReportBufferTest, AShardComesAfterItsStepsAndAtOnceAndIsKept) {
  buffer_.AddStep(fence_, Step(1));
  buffer_.Acknowledge(buffer_.Next(now_, &next_sequence_)->sequence());
  buffer_.AddStep(fence_, Step(2));
  lasp::v1::ShardWritten shard;
  *shard.mutable_fence() = fence_;
  shard.set_step(2);
  buffer_.AddShard(shard);
  buffer_.AddStep(fence_, Step(3));
  buffer_.AddExit({});
  EXPECT_EQ(Steps({*buffer_.Next(now_, &next_sequence_)}), std::vector<int64_t>({2}));
  const auto written = buffer_.Next(now_, &next_sequence_);
  EXPECT_EQ(written->shard_written().step(), 2);
  EXPECT_EQ(Steps({*buffer_.Next(now_, &next_sequence_)}), std::vector<int64_t>({3}));
  EXPECT_TRUE(buffer_.Next(now_, &next_sequence_)->has_rank_exited());
  // Again on the next stream, as long as it is not acknowledged.
  buffer_.BeginSession();
  const std::vector<ConnectRequest> again = SendAll(false);
  ASSERT_EQ(again.size(), 4U);
  EXPECT_EQ(again[1].sequence(), written->sequence());
  EXPECT_EQ(again[1].shard_written().step(), 2);
  buffer_.Acknowledge(again[3].sequence());
  EXPECT_TRUE(buffer_.empty());
}

TEST_F(ReportBufferTest, OneMessageCarriesOneRankAndAllItsSteps) {
  const auto other = NewFence("b");
  for (int i = 1; i <= 50; ++i) {
    buffer_.AddStep(fence_, Step(i));
    buffer_.AddStep(other, Step(100 + i));
  }
  // Ranks that step by turns are due together, a second after the last time.
  std::vector<ConnectRequest> messages = {*buffer_.Next(now_, &next_sequence_),
                                          *buffer_.Next(now_, &next_sequence_)};
  EXPECT_FALSE(buffer_.Next(now_, &next_sequence_).has_value());
  EXPECT_EQ(messages[0].step_reports().fence().training_job(), "a");
  EXPECT_EQ(messages[0].step_reports().steps_size(), 50);
  EXPECT_EQ(messages[1].step_reports().fence().training_job(), "b");
  EXPECT_EQ(messages[1].step_reports().steps_size(), 50);
  const std::vector<int64_t> steps = Steps(messages);
  EXPECT_TRUE(std::is_sorted(steps.begin(), steps.end()));
  buffer_.AddStep(other, Step(151));
  buffer_.AddStep(fence_, Step(51));
  EXPECT_FALSE(buffer_.Next(now_ + absl::Milliseconds(999), &next_sequence_).has_value());
  EXPECT_EQ(Steps(SendAll(true)), std::vector<int64_t>({151, 51}));
}

TEST_F(ReportBufferTest, AFullMessageDoesNotWait) {
  buffer_.AddStep(fence_, Step(1));
  ASSERT_TRUE(buffer_.Next(now_, &next_sequence_).has_value());
  for (int i = 2; i <= 102; ++i) {
    buffer_.AddStep(fence_, Step(i));
  }
  EXPECT_EQ(buffer_.Next(now_, &next_sequence_)->step_reports().steps_size(), 100);
  EXPECT_FALSE(buffer_.Next(now_, &next_sequence_).has_value());
}

TEST_F(ReportBufferTest, AnExitIsNotOvertakenByTheNextGeneration) {
  auto next = fence_;
  next.set_generation(1);
  buffer_.AddStep(fence_, Step(1));
  buffer_.AddExit({});
  buffer_.AddStep(next, Step(2));
  const auto messages = SendAll(true);
  ASSERT_EQ(messages.size(), 3U);
  EXPECT_EQ(messages[0].step_reports().steps(0).step(), 1);
  EXPECT_TRUE(messages[1].has_rank_exited());
  EXPECT_EQ(messages[2].step_reports().steps(0).step(), 2);
}

TEST_F(ReportBufferTest, NamesARankWhoseExitWasNeverSent) {
  lasp::v1::RankExited exited;
  *exited.mutable_fence() = fence_;
  exited.set_slot(-1);
  buffer_.AddExit(exited);
  EXPECT_TRUE(buffer_.EndedRanks().empty()) << "it never had a slot";
  exited.set_slot(1);
  buffer_.AddExit(exited);
  buffer_.AddExit(exited);
  ASSERT_EQ(buffer_.EndedRanks().size(), 1U);
  EXPECT_EQ(buffer_.EndedRanks()[0].slot(), 1);
  EXPECT_EQ(buffer_.EndedRanks()[0].phase(), lasp::v1::RankStatus::PHASE_STARTING) << "no step";
  SendAll(false);
  EXPECT_TRUE(buffer_.EndedRanks().empty());
}

TEST_F(ReportBufferTest, SendsAgainUnderTheSameNumbersUntilAcknowledged) {
  for (int i = 1; i <= 250; ++i) {
    buffer_.AddStep(fence_, Step(i));
  }
  const auto first = SendAll(false);
  ASSERT_EQ(first.size(), 3U);
  buffer_.Acknowledge(first[0].sequence());
  buffer_.BeginSession();
  buffer_.AddStep(fence_, Step(251));
  const auto again = SendAll(true);
  ASSERT_EQ(again.size(), 3U);
  EXPECT_EQ(again[0].SerializeAsString(), first[1].SerializeAsString());
  EXPECT_EQ(again[1].SerializeAsString(), first[2].SerializeAsString());
  EXPECT_EQ(Steps({again[2]}), std::vector<int64_t>({251}));
  EXPECT_TRUE(buffer_.empty());
  EXPECT_EQ(buffer_.step_count(), 0U);
}

TEST_F(ReportBufferTest, AnAcknowledgementCoversOnlyWhatWentOnThisStream) {
  buffer_.AddStep(fence_, Step(1));
  const auto steps = buffer_.Next(now_, &next_sequence_);
  buffer_.AddExit({});
  const auto exited = buffer_.Next(now_, &next_sequence_);
  buffer_.BeginSession();
  // Of something said since, which has a higher number.
  const int64_t later = next_sequence_++;
  buffer_.Acknowledge(later);
  EXPECT_EQ(buffer_.step_count(), 1U);
  EXPECT_EQ(buffer_.Next(now_, &next_sequence_)->sequence(), steps->sequence());
  buffer_.Acknowledge(steps->sequence());
  EXPECT_FALSE(buffer_.empty());
  EXPECT_TRUE(buffer_.Next(now_, &next_sequence_)->has_rank_exited());
  buffer_.Acknowledge(exited->sequence());
  EXPECT_TRUE(buffer_.empty());
}

TEST_F(ReportBufferTest, BoundsWhatIsUnderWay) {
  for (int i = 1; i <= 900; ++i) {
    buffer_.AddStep(fence_, Step(i));
  }
  const auto messages = SendAll(false);
  EXPECT_EQ(messages.size(), 4U);
  EXPECT_EQ(buffer_.NextDue(), absl::InfiniteDuration());
  buffer_.Acknowledge(messages[1].sequence());
  EXPECT_EQ(SendAll(false).size(), 2U);
}

TEST_F(ReportBufferTest, ThinsTheOldestAndNeverAnExit) {
  lasp::v1::RankExited exited;
  constexpr int kSteps = 10'000;
  for (int i = 1; i <= kSteps; ++i) {
    buffer_.AddStep(fence_, Step(i));
    if (i % 1000 == 0) {
      buffer_.AddExit(exited);
    }
    ASSERT_LE(buffer_.step_count(), 1000U);
  }
  const auto messages = SendAll(true);
  const std::vector<int64_t> steps = Steps(messages);
  EXPECT_EQ(static_cast<int64_t>(steps.size()), kSteps - buffer_.thinned_steps());
  EXPECT_TRUE(std::is_sorted(steps.begin(), steps.end()));
  EXPECT_EQ(steps.front(), 1);
  EXPECT_EQ(steps.back(), kSteps);
  // The newest are all there.
  EXPECT_EQ(steps[steps.size() - 400], kSteps - 399);
  EXPECT_EQ(std::count_if(messages.begin(), messages.end(),
                          [](const ConnectRequest& m) { return m.has_rank_exited(); }),
            10);
}

TEST_F(ReportBufferTest, ThinningAmongSentOnesKeepsTheirNumbers) {
  for (int i = 1; i <= 1000; ++i) {
    buffer_.AddStep(fence_, Step(i));
  }
  ASSERT_EQ(SendAll(false).size(), 4U);
  for (int i = 1001; i <= 1200; ++i) {
    buffer_.AddStep(fence_, Step(i));
  }
  buffer_.BeginSession();
  const auto messages = SendAll(true);
  const std::vector<int64_t> steps = Steps(messages);
  EXPECT_TRUE(std::is_sorted(steps.begin(), steps.end()));
  EXPECT_EQ(std::set<int64_t>(steps.begin(), steps.end()).size(), steps.size());
  EXPECT_EQ(steps.back(), 1200);
}

TEST(ReportLimitsTest, NoMessageIsLargeWhateverIsBehind) {
  ReportBuffer buffer;
  lasp::v1::StepMetrics step;
  step.set_loss(1.0 / 3);
  step.set_gradient_norm(1.0 / 7);
  step.set_learning_rate(1e-3);
  step.set_eval_loss(1.0 / 3);
  step.set_tokens_per_second(123456.789);
  step.set_step_seconds(0.123456789);
  step.set_sp_wait_seconds(0.0123456789);
  step.set_gradient_sync_wait_seconds(0.0123456789);
  step.set_generation(1000);
  step.mutable_time()->set_seconds(1'800'000'000);
  step.mutable_time()->set_nanos(123'456'789);
  constexpr int kSteps = 5000;
  for (int i = 1; i <= kSteps; ++i) {
    step.set_step(1'000'000'000 + i);
    step.set_token_count(int64_t{1} << 50);
    buffer.AddStep(NewFence("projects/default/trainingJobs/a-job-with-a-long-name"), step);
  }
  int64_t next_sequence = 1;
  int steps = 0;
  while (const auto message = buffer.Next(absl::Hours(1), &next_sequence)) {
    EXPECT_LE(message->ByteSizeLong(), 64U << 10);
    steps += message->step_reports().steps_size();
    buffer.Acknowledge(message->sequence());
  }
  EXPECT_EQ(steps, kSteps);
}

class OutboxTest : public ::testing::Test {
 protected:
  std::optional<ConnectRequest> Next() { return outbox_.Next(absl::ZeroDuration()); }

  void Begin() {
    ConnectRequest hello;
    hello.mutable_hello();
    outbox_.BeginSession(hello);
    EXPECT_TRUE(Next()->has_hello());
  }

  ManualClock clock_;
  LogShipper logs_{1 << 20, &clock_};
  Outbox outbox_{&logs_, &clock_, [] {
                   lasp::v1::Heartbeat heartbeat;
                   heartbeat.add_ranks();
                   return heartbeat;
                 }};
};

TEST_F(OutboxTest, NothingGoesBeforeTheWelcome) {
  outbox_.AddStep(NewFence("a"), Step(1));
  ConnectRequest control;
  control.mutable_draining();
  Begin();
  outbox_.AddControl(control);
  clock_.Advance(absl::Seconds(10));
  EXPECT_FALSE(Next().has_value());
  outbox_.Welcome(absl::Seconds(3));
  outbox_.AddControl(control);
  EXPECT_TRUE(Next()->has_draining());
  EXPECT_TRUE(Next()->has_step_reports());
  EXPECT_FALSE(Next().has_value());
}

TEST_F(OutboxTest, HeartbeatsGoOnTimeBeforeReports) {
  Begin();
  outbox_.Welcome(absl::Seconds(3));
  EXPECT_FALSE(Next().has_value());
  outbox_.AddExit({});
  clock_.Advance(absl::Seconds(3));
  const auto heartbeat = Next();
  ASSERT_TRUE(heartbeat->has_heartbeat());
  EXPECT_EQ(heartbeat->heartbeat().ranks_size(), 1);
  EXPECT_TRUE(Next()->has_rank_exited());
  EXPECT_FALSE(Next().has_value());
  clock_.Advance(absl::Seconds(3));
  EXPECT_TRUE(Next()->has_heartbeat());
}

TEST_F(OutboxTest, NumbersRiseOverStreams) {
  Begin();
  outbox_.Welcome(absl::Seconds(3));
  outbox_.AddExit({});
  const int64_t first = Next()->sequence();
  EXPECT_FALSE(outbox_.AllAcknowledged());
  outbox_.EndSession();
  ConnectRequest hello;
  hello.mutable_hello();
  outbox_.BeginSession(hello);
  EXPECT_GT(Next()->sequence(), first);
  outbox_.Welcome(absl::Seconds(3));
  // The report goes again under its number.
  EXPECT_EQ(Next()->sequence(), first);
  outbox_.Acknowledge(first);
  EXPECT_TRUE(outbox_.AllAcknowledged());
}

// The address of another job's rank is said, and answered, before the exit has gone again.
TEST_F(OutboxTest, AnAnswerToWhatCameFirstTakesNoReportAway) {
  Begin();
  outbox_.Welcome(absl::Seconds(3));
  outbox_.AddExit({});
  const int64_t first = Next()->sequence();
  outbox_.EndSession();
  Begin();
  outbox_.Welcome(absl::Seconds(3));
  ConnectRequest control;
  control.mutable_rank_address();
  outbox_.AddControl(control);
  const auto address = Next();
  ASSERT_TRUE(address->has_rank_address());
  outbox_.Acknowledge(address->sequence());
  EXPECT_FALSE(outbox_.AllAcknowledged());
  const auto again = Next();
  ASSERT_TRUE(again.has_value());
  EXPECT_TRUE(again->has_rank_exited());
  EXPECT_EQ(again->sequence(), first);
}

TEST(OutboxWaitTest, WakesForWhatComes) {
  LogShipper logs(1 << 20, &SystemClock());
  Outbox outbox(&logs, &SystemClock(), [] { return lasp::v1::Heartbeat(); });
  ConnectRequest hello;
  hello.mutable_hello();
  outbox.BeginSession(hello);
  ASSERT_TRUE(outbox.Next(absl::Seconds(1)).has_value());
  outbox.Welcome(absl::Seconds(60));
  std::thread adder([&outbox] { outbox.AddExit({}); });
  EXPECT_TRUE(outbox.Next(absl::Seconds(30)).has_value());
  adder.join();
  std::thread waker([&outbox] { outbox.Wake(); });
  EXPECT_FALSE(outbox.Next(absl::Seconds(30)).has_value());
  waker.join();
}

}  // namespace
}  // namespace lasp::worker
