// The whole agent without its transport, driven by many threads: the part that ThreadSanitizer
// looks at.
#include "worker/agent/agent.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/rank_exit_code.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/agent/rank_orders.h"

namespace lasp::worker {
namespace {

using lasp::v1::RankExited;
using testing::Alone;
using testing::FenceOf;
using testing::Options;
using testing::StopOf;

// A coordinator without a transport: threads that give orders, and one that carries messages.
class AgentTest : public ::testing::Test {
 protected:
  static constexpr int kSlots = 4;

  void Answer(const lasp::v1::ConnectRequest& request) {
    lasp::v1::ConnectResponse response;
    if (request.has_hello()) {
      response.mutable_welcome()->mutable_heartbeat_interval()->set_nanos(20'000'000);
    } else if (request.has_rank_address()) {
      *response.mutable_peer_addresses()->mutable_fence() = request.rank_address().fence();
      response.mutable_peer_addresses()->add_addresses(request.rank_address().address());
    } else if (request.has_rank_ready()) {
      *response.mutable_start()->mutable_fence() = request.rank_ready().fence();
    } else if (request.has_step_reports() || request.has_rank_exited() ||
               request.has_shard_written()) {
      response.set_acked_sequence(request.sequence());
      if (request.has_rank_exited()) {
        const RankExited& exited = request.rank_exited();
        done_ += exited.exit_code() == kRankDone ? 1 : 0;
        MutexLock lock(&mutex_);
        ended_[exited.slot()] = std::max(ended_[exited.slot()], exited.fence().generation());
        changed_.NotifyAll();
      }
    }
    agent_.Handle(response);
  }

  // Whether the slot's rank of this generation has ended within `timeout`.
  bool WaitForEnd(int slot, int64_t generation, absl::Duration timeout) {
    const absl::Duration deadline = SystemClock().Monotonic() + timeout;
    MutexLock lock(&mutex_);
    while (ended_[slot] < generation && SystemClock().Monotonic() < deadline) {
      changed_.WaitWithTimeout(&mutex_, deadline - SystemClock().Monotonic());
    }
    return ended_[slot] >= generation;
  }

  // The next message of this kind, what comes before it dropped; empty where none comes.
  lasp::v1::ConnectRequest Await(lasp::v1::ConnectRequest::BodyCase kind) {
    const absl::Duration deadline = SystemClock().Monotonic() + absl::Seconds(20);
    while (SystemClock().Monotonic() < deadline) {
      const auto message = agent_.NextMessage(absl::Milliseconds(100));
      if (message.has_value() && message->body_case() == kind) {
        return *message;
      }
    }
    ADD_FAILURE() << "no message of kind " << kind;
    return {};
  }

  ::lasp::testing::TempDirectory folder_;
  RankLedger ledger_{
      (std::filesystem::create_directories(folder_.Join("ranks")), folder_.Join("ranks"))};
  RankLogs logs_{{.folder = folder_.Join("logs")}, &SystemClock()};
  RankMetrics rank_metrics_{"w1", &SystemClock()};
  AgentMetrics agent_metrics_{kSlots, &rank_metrics_};
  Agent agent_{{.worker_id = "w1", .supervisor = Options()},
               &ledger_,
               &logs_,
               &rank_metrics_,
               &agent_metrics_,
               &SystemClock()};
  Mutex mutex_;
  CondVar changed_;
  std::map<int, int64_t> ended_ GUARDED_BY(mutex_);
  std::atomic<int> done_{0};
  std::atomic<bool> stopping_{false};
};

TEST_F(AgentTest, ManyThreadsGiveOrders) {
  std::vector<std::thread> threads;
  // One stream after the other.
  threads.emplace_back([this] {
    while (!stopping_) {
      agent_.BeginStream();
      for (int i = 0; i < 200 && !stopping_; ++i) {
        if (const auto message = agent_.NextMessage(absl::Milliseconds(20))) {
          Answer(*message);
        }
      }
      agent_.EndStream();
    }
  });
  constexpr int kOrders = 20;
  for (int slot = 0; slot < kSlots; ++slot) {
    threads.emplace_back([this, slot] {
      std::minstd_rand random(static_cast<unsigned>(slot + 1));
      for (int order = 1; order <= kOrders; ++order) {
        lasp::v1::ConnectResponse response;
        *response.mutable_assignment() =
            Alone(absl::StrCat("slot", slot), order, slot, 10, {"lines=20"});
        agent_.Handle(response);
        if (random() % 3 == 0) {
          *response.mutable_stop() =
              StopOf(FenceOf(absl::StrCat("slot", slot), order, 0),
                     random() % 2 == 0 ? lasp::v1::Stop::MODE_KILL : lasp::v1::Stop::MODE_DRAIN);
          agent_.Handle(response);
        }
        // Some run to their end, some meet the next order half way.
        WaitForEnd(slot, order,
                   random() % 2 == 0 ? absl::Seconds(20) : absl::Milliseconds(random() % 50));
      }
    });
  }
  threads.emplace_back([this] {
    while (!stopping_) {
      rank_metrics_.Collect();
      agent_metrics_.Collect();
      absl::SleepFor(absl::Milliseconds(1));
    }
  });
  for (size_t i = 1; i + 1 < threads.size(); ++i) {
    threads[i].join();
  }
  agent_.Drain();
  EXPECT_TRUE(agent_.WaitUntilNoRanks(absl::Seconds(20)));
  const absl::Duration deadline = SystemClock().Monotonic() + absl::Seconds(20);
  while (!agent_.AllReported() && SystemClock().Monotonic() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_TRUE(agent_.AllReported());
  stopping_ = true;
  threads.front().join();
  threads.back().join();
  EXPECT_GT(done_, 0);
  // A rank's record is the last that goes of it.
  while (!std::filesystem::is_empty(folder_.Join("ranks")) &&
         SystemClock().Monotonic() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.Join("ranks")));
}

TEST_F(AgentTest, ADrainIsSaidToEveryCoordinator) {
  const auto next = [this] { return agent_.NextMessage(absl::ZeroDuration()); };
  lasp::v1::ConnectResponse welcome;
  welcome.mutable_welcome()->mutable_heartbeat_interval()->set_seconds(60);
  agent_.BeginStream();
  EXPECT_FALSE(next()->hello().draining());
  // After the greeting and before the answer to it.
  agent_.Drain();
  agent_.Handle(welcome);
  const auto draining = next();
  ASSERT_TRUE(draining.has_value());
  EXPECT_TRUE(draining->has_draining());
  lasp::v1::ConnectResponse assignment;
  *assignment.mutable_assignment() = Alone("late", 1, 0, 10);
  agent_.Handle(assignment);
  const auto refused = next();
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->rank_exited().exit_code(), kRankDrained);
  agent_.EndStream();
  agent_.BeginStream();
  EXPECT_TRUE(next()->hello().draining());
  agent_.EndStream();
}

TEST_F(AgentTest, AnAssignmentSaidAgainWhileItDrainsIsNoEnd) {
  lasp::v1::ConnectResponse response;
  response.mutable_welcome()->mutable_heartbeat_interval()->set_seconds(60);
  agent_.BeginStream();
  agent_.Handle(response);
  *response.mutable_assignment() = Alone("a", 1, 0, 1'000'000, {"step_ms=1", "ignore_drain=1"});
  agent_.Handle(response);
  // Until it has said where it listens, and so lives.
  Await(lasp::v1::ConnectRequest::kRankAddress);
  agent_.Drain();
  agent_.Handle(response);
  EXPECT_TRUE(agent_.NextMessage(absl::ZeroDuration())->has_draining());
  while (const auto message = agent_.NextMessage(absl::ZeroDuration())) {
    EXPECT_FALSE(message->has_rank_exited());
  }
  agent_.Kill("the test ends");
  EXPECT_TRUE(agent_.WaitUntilNoRanks(absl::Seconds(10)));
  agent_.EndStream();
}

TEST_F(AgentTest, AReadyRankIsSaidToEveryCoordinatorWithItsRecord) {
  lasp::v1::ConnectResponse welcome;
  welcome.mutable_welcome()->mutable_heartbeat_interval()->set_seconds(60);
  agent_.BeginStream();
  agent_.Handle(welcome);
  lasp::v1::ConnectResponse order;
  *order.mutable_assignment() = Alone("a", 1, 0, 10, {"record=chosen"});
  agent_.Handle(order);
  const auto address = Await(lasp::v1::ConnectRequest::kRankAddress).rank_address();
  *order.mutable_peer_addresses()->mutable_fence() = address.fence();
  order.mutable_peer_addresses()->add_addresses(address.address());
  agent_.Handle(order);
  EXPECT_EQ(Await(lasp::v1::ConnectRequest::kRankReady).rank_ready().gemm_record(), "chosen");
  agent_.EndStream();
  agent_.BeginStream();
  agent_.Handle(welcome);
  EXPECT_EQ(Await(lasp::v1::ConnectRequest::kRankAddress).rank_address().address(),
            address.address());
  EXPECT_EQ(Await(lasp::v1::ConnectRequest::kRankReady).rank_ready().gemm_record(), "chosen");
  agent_.Kill("the test ends");
  EXPECT_TRUE(agent_.WaitUntilNoRanks(absl::Seconds(10)));
  agent_.EndStream();
}

TEST_F(AgentTest, ARankWhoseEndIsStillToBeSentIsNamedBeforeThoseThatLive) {
  lasp::v1::ConnectResponse welcome;
  welcome.mutable_welcome()->mutable_heartbeat_interval()->set_seconds(60);
  lasp::v1::ConnectResponse order;
  agent_.BeginStream();
  agent_.Handle(welcome);
  *order.mutable_assignment() = Alone("done", 1, 2, 10);
  agent_.Handle(order);
  Answer(Await(lasp::v1::ConnectRequest::kRankAddress));
  Answer(Await(lasp::v1::ConnectRequest::kRankReady));
  agent_.EndStream();
  EXPECT_TRUE(agent_.WaitUntilNoRanks(absl::Seconds(20)));
  // In its slot; and two that get none.
  for (const lasp::v1::Assignment& assignment :
       {Alone("next", 1, 2, 10), Alone("nowhere", 1, kSlots, 10)}) {
    *order.mutable_assignment() = assignment;
    agent_.Handle(order);
  }
  *order.mutable_stop() = StopOf(FenceOf("never", 1, 0), lasp::v1::Stop::MODE_KILL);
  agent_.Handle(order);
  agent_.BeginStream();
  lasp::v1::Hello hello = Await(lasp::v1::ConnectRequest::kHello).hello();
  ASSERT_EQ(hello.ranks_size(), 2) << hello.DebugString();
  EXPECT_EQ(hello.ranks(0).fence().uid(), "uid-done");
  EXPECT_EQ(hello.ranks(0).slot(), 2);
  EXPECT_EQ(hello.ranks(0).phase(), lasp::v1::RankStatus::PHASE_STOPPING);
  EXPECT_EQ(hello.ranks(1).fence().uid(), "uid-next");
  EXPECT_EQ(hello.slots(2).training_job(), "projects/default/trainingJobs/next");
  agent_.Handle(welcome);
  EXPECT_EQ(Await(lasp::v1::ConnectRequest::kRankExited).rank_exited().fence().uid(), "uid-done");
  agent_.EndStream();
  // Sent, and so no longer named: it may be stored.
  agent_.BeginStream();
  hello = Await(lasp::v1::ConnectRequest::kHello).hello();
  ASSERT_EQ(hello.ranks_size(), 1) << hello.DebugString();
  EXPECT_EQ(hello.ranks(0).fence().uid(), "uid-next");
  agent_.Kill("the test ends");
  EXPECT_TRUE(agent_.WaitUntilNoRanks(absl::Seconds(10)));
  agent_.EndStream();
}

TEST_F(AgentTest, ACoordinatorCanDrainIt) {
  lasp::v1::ConnectResponse response;
  response.mutable_welcome();
  agent_.BeginStream();
  EXPECT_TRUE(agent_.NextMessage(absl::ZeroDuration())->has_hello());
  agent_.Handle(response);
  response.mutable_drain();
  agent_.Handle(response);
  const auto draining = agent_.NextMessage(absl::ZeroDuration());
  ASSERT_TRUE(draining.has_value());
  EXPECT_TRUE(draining->has_draining());
  agent_.EndStream();
}

TEST_F(AgentTest, HasNotReportedWhatIsStillInAPipe) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  fcntl(reader.get(), F_SETFL, O_NONBLOCK);
  EXPECT_TRUE(agent_.AllReported());
  logs_.Attach(*logs_.Prepare(FenceOf("a", 1, 0)), std::move(reader));
  EXPECT_FALSE(agent_.AllReported());
  writer = UniqueFd();
  const absl::Duration deadline = SystemClock().Monotonic() + absl::Seconds(10);
  while (!agent_.AllReported() && SystemClock().Monotonic() < deadline) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_TRUE(agent_.AllReported());
}

}  // namespace
}  // namespace lasp::worker
