// A coordinator comes back, and with it every agent at once. What that costs it must grow with
// their number alone.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/protocol_range.h"
#include "proto/rpc/random_id.h"
#include "server/server_core.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;

// An instrumented program is slower by itself.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kSlowness = 8;
#else
constexpr int kSlowness = 1;
#endif

class KeepingLink final : public AgentLink {
 public:
  void Send(lasp::v1::ConnectResponse response) override {
    MutexLock lock(&mutex_);
    messages_.push_back(std::move(response));
  }

  void Close(const absl::Status& status) override { ADD_FAILURE() << status; }

  std::deque<lasp::v1::ConnectResponse> Take() {
    MutexLock lock(&mutex_);
    return std::exchange(messages_, {});
  }

 private:
  Mutex mutex_;
  std::deque<lasp::v1::ConnectResponse> messages_ GUARDED_BY(mutex_);
};

struct Agent {
  lasp::v1::Hello hello;
  std::shared_ptr<KeepingLink> link;
  std::shared_ptr<AgentSession> session;
};

// Of all threads of this process.
double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

class HelloStormTest : public ::testing::Test {
 protected:
  void Open() {
    CoreOptions options;
    options.data_dir = directory_.path();
    // No heartbeats here.
    options.lease_duration = absl::Hours(1);
    options.presence_deadline = absl::Hours(1);
    options.readiness_deadline = absl::Hours(1);
    core_ = ServerCore::Open(options, &SystemClock(), nullptr).value();
  }

  void ConnectAll() {
    for (Agent& agent : agents_) {
      agent.link = std::make_shared<KeepingLink>();
      agent.session = core_->controller().Connect(agent.hello, agent.link).value();
    }
    ASSERT_TRUE(core_->controller().Flush());
  }

  void Deliver(const Agent& agent, lasp::v1::ConnectRequest message) {
    LASP_ASSERT_OK(core_->controller().Deliver(agent.session, std::move(message)));
  }

  // Starts jobs of `ranks` each on agents with one slot each.
  void StartJobs(int jobs, int ranks) {
    for (int i = 0; i < jobs; ++i) {
      lasp::v1::CreateTrainingJobRequest request;
      request.set_parent("projects/default");
      auto* spec = request.mutable_training_job()->mutable_spec();
      spec->mutable_parallelism()->mutable_sequence_parallel()->set_size(1);
      spec->mutable_parallelism()->mutable_data_parallel()->set_size(ranks);
      spec->set_max_steps(100);
      core_->controller().Create(
          std::move(request), Caller(),
          [](const absl::StatusOr<JobViewPtr>& job) { LASP_EXPECT_OK(job); });
    }
    ASSERT_TRUE(core_->controller().Flush());
    for (Agent& agent : agents_) {
      for (const lasp::v1::ConnectResponse& message : agent.link->Take()) {
        if (!message.has_assignment()) {
          continue;
        }
        auto* status = agent.hello.add_ranks();
        *status->mutable_fence() = message.assignment().fence();
        status->set_slot(message.assignment().slot());
        status->set_phase(lasp::v1::RankStatus::PHASE_TRAINING);
        lasp::v1::ConnectRequest address;
        *address.mutable_rank_address()->mutable_fence() = status->fence();
        address.mutable_rank_address()->set_address("here");
        Deliver(agent, std::move(address));
        lasp::v1::ConnectRequest ready;
        *ready.mutable_rank_ready()->mutable_fence() = status->fence();
        Deliver(agent, std::move(ready));
        if (&agent - agents_.data() < kLogs) {
          lasp::v1::ConnectRequest log;
          *log.mutable_log_chunk()->mutable_fence() = status->fence();
          log.mutable_log_chunk()->set_data(kLine);
          Deliver(agent, std::move(log));
        }
      }
    }
    ASSERT_TRUE(core_->controller().Flush());
    ExpectRunning(jobs);
  }

  void ExpectRunning(int jobs) const {
    const std::vector<JobViewPtr> all = core_->jobs().All();
    EXPECT_EQ(all.size(), static_cast<size_t>(jobs));
    EXPECT_TRUE(std::all_of(all.begin(), all.end(), [](const JobViewPtr& view) {
      return view->job.state() == Job::STATE_RUNNING;
    }));
  }

  // The seconds of the processor that it took to hear all agents again.
  double Storm(int agents, int jobs, int ranks) {
    Open();
    for (int i = 0; i < agents; ++i) {
      lasp::v1::Hello& hello = agents_.emplace_back().hello;
      hello.set_worker_id(absl::StrCat("host-", i, ".cluster.example.org"));
      hello.set_incarnation(NewUuid());
      hello.set_protocol_version(kWorkerProtocol.oldest);
      hello.add_slots()->set_index(0);
    }
    ConnectAll();
    StartJobs(jobs, ranks);
    for (Agent& agent : agents_) {
      agent.link->Take();
    }
    core_ = nullptr;
    Open();
    const absl::Duration begin = SystemClock().Monotonic();
    const double start = CpuSeconds();
    ConnectAll();
    const double took = CpuSeconds() - start;
    const absl::Duration passed = SystemClock().Monotonic() - begin;
    ExpectRunning(jobs);
    // Each is welcomed, and asked for its rank's log from where the store has it.
    for (const Agent& agent : agents_) {
      const int64_t log_end = &agent - agents_.data() < kLogs ? std::ssize(kLine) : 0;
      const auto messages = agent.link->Take();
      EXPECT_TRUE(std::any_of(messages.begin(), messages.end(),
                              [](const auto& message) { return message.has_welcome(); }));
      EXPECT_TRUE(std::any_of(messages.begin(), messages.end(), [log_end](const auto& message) {
        return message.has_log_position() && message.log_position().offset() == log_end;
      }));
    }
    std::printf("%d agents heard again, %d jobs of %d ranks: %.2f s of the processor in %.2f s\n",
                agents, jobs, ranks, took, absl::ToDoubleSeconds(passed));
    return took;
  }

  // Agents whose ranks have written something.
  static constexpr ptrdiff_t kLogs = 200;

  const std::string kLine = "2026-01-01T00:00:00.000000Z step 1\n";
  const testing::TempDirectory directory_;
  std::vector<Agent> agents_;
  std::unique_ptr<ServerCore> core_;
};

TEST_F(HelloStormTest, FiveThousandAgentsWithSmallJobs) {
  EXPECT_LT(Storm(5'000, 625, 8), 2.0 * kSlowness);
}

TEST_F(HelloStormTest, FiveThousandAgentsOfOneJob) {
  // Every rank is told where every other listens: an instrumented program takes fewer of them.
  constexpr int kRanks = 5'000 / kSlowness;
  EXPECT_LT(Storm(kRanks, 1, kRanks), 2.0 * kSlowness);
}

}  // namespace
}  // namespace lasp::server
