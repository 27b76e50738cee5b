// The whole core under many threads, for ThreadSanitizer: users, agents, readers, watchers, and
// followers of metrics and logs, all at once, with agents that vanish. Afterwards everything must
// agree.
//
// LASP_PLANT_RACE=controller|store|leases|scheduler|watch|metrics|log adds one unguarded counter
// that a thread of that part and another thread both touch: a run under ThreadSanitizer must then
// fail, which shows that it sees that part's threads.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/protocol_range.h"
#include "proto/rpc/rank_exit_code.h"
#include "server/job_state_machine.h"
#include "server/scheduler.h"
#include "server/server_core.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;

// The planted race. Everything else in this file is guarded.
class Bait {
 public:
  Bait() {
    const char* planted = std::getenv("LASP_PLANT_RACE");
    planted_ = planted == nullptr ? "" : planted;
  }

  bool planted() const { return !planted_.empty(); }

  // From a thread of the part.
  void Touch(const char* part) {
    if (planted_ == part) {
      ++unguarded_;
    }
  }

  void TouchPlanted() { ++unguarded_; }

 private:
  std::string planted_;
  int64_t unguarded_ = 0;
};

Bait* TheBait() {
  static auto* const bait = new Bait();
  return bait;
}

// Wakes one thread.
class Signal {
 public:
  void Set() {
    MutexLock lock(&mutex_);
    set_ = true;
    changed_.Notify();
  }

  // Until it is set, or a moment has passed.
  void Wait() {
    MutexLock lock(&mutex_);
    if (!set_) {
      changed_.WaitWithTimeout(&mutex_, absl::Milliseconds(20));
    }
    set_ = false;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool set_ GUARDED_BY(mutex_) = false;
};

class QueueLink final : public AgentLink {
 public:
  void Send(lasp::v1::ConnectResponse response) override {
    MutexLock lock(&mutex_);
    messages_.push_back(std::move(response));
  }

  void Close(const absl::Status&) override {
    MutexLock lock(&mutex_);
    closed_ = true;
  }

  std::deque<lasp::v1::ConnectResponse> Take() {
    MutexLock lock(&mutex_);
    return std::exchange(messages_, {});
  }

  bool closed() {
    MutexLock lock(&mutex_);
    return closed_;
  }

 private:
  Mutex mutex_;
  std::deque<lasp::v1::ConnectResponse> messages_ GUARDED_BY(mutex_);
  bool closed_ GUARDED_BY(mutex_) = false;
};

class TouchingObserver final : public CoreObserver {
 public:
  void OnCommit(size_t, absl::Duration) override {
    TheBait()->Touch("store");
    ++commits;
  }

  std::atomic<int64_t> commits{0};
};

class ConcurrencyTest : public ::testing::Test {
 protected:
  static constexpr int kSubmitters = 3;
  static constexpr int kJobsEach = 40;
  static constexpr int kAgents = 4;
  static constexpr int kSlots = 3;

  void SetUp() override {
    CoreOptions options;
    options.data_dir = directory_.path();
    options.lease_duration = absl::Milliseconds(800);
    options.sweep_interval = absl::Milliseconds(20);
    options.progress_interval = absl::Milliseconds(5);
    options.restart_backoff = absl::Milliseconds(1);
    options.max_restart_backoff = absl::Milliseconds(4);
    options.bookmark_interval = absl::Milliseconds(50);
    options.missing_rank_grace = absl::Milliseconds(50);
    options.presence_deadline = absl::Seconds(2);
    options.readiness_deadline = absl::Seconds(2);
    options.finish_deadline = absl::Seconds(2);
    options.stop_repeat_interval = absl::Milliseconds(100);
    options.max_tombstones = 20;
    options.retention_interval = absl::Milliseconds(50);
    core_ = ServerCore::Open(options, &SystemClock(), &observer_).value();
  }

  // One agent: starts, trains, logs and ends ranks; its stream breaks now and then, and once it is
  // silent for longer than its lease.
  void RunAgent(int index) {
    std::mt19937 random(static_cast<unsigned>(index) + 1);
    JobController& controller = core_->controller();

    struct Rank {
      lasp::v1::Fence fence;
      int slot = 0;
      lasp::v1::RankStatus::Phase phase = lasp::v1::RankStatus::PHASE_STARTING;
      int64_t step = 0;
      int64_t log_offset = 0;
    };

    std::vector<Rank> ranks;
    int64_t sequence = 0;
    while (!agents_stop_) {
      lasp::v1::Hello hello;
      hello.set_worker_id(absl::StrCat("agent-", index));
      hello.set_incarnation("0d2a0e63-5c1f-4c36-9d2b-3f6e4f7b1a10");
      hello.set_protocol_version(kWorkerProtocol.oldest);
      for (int i = 0; i < kSlots; ++i) {
        hello.add_slots()->set_index(i);
      }
      for (const Rank& rank : ranks) {
        auto* status = hello.add_ranks();
        *status->mutable_fence() = rank.fence;
        status->set_slot(rank.slot);
        status->set_phase(rank.phase);
      }
      auto link = std::make_shared<QueueLink>();
      auto session = controller.Connect(hello, link);
      if (!session.ok()) {
        continue;
      }
      const auto deliver = [&](lasp::v1::ConnectRequest message) {
        message.set_sequence(++sequence);
        return controller.Deliver(*session, std::move(message)).ok();
      };
      bool alive = true;
      for (int round = 0; alive && !agents_stop_ && round < 400; ++round) {
        lasp::v1::ConnectRequest heartbeat;
        heartbeat.mutable_heartbeat();
        for (const Rank& rank : ranks) {
          *heartbeat.mutable_heartbeat()->add_ranks()->mutable_fence() = rank.fence;
        }
        alive = deliver(std::move(heartbeat)) && !link->closed();
        TheBait()->Touch("leases");
        for (const auto& message : link->Take()) {
          lasp::v1::ConnectRequest answer;
          if (message.has_assignment()) {
            Rank& rank = ranks.emplace_back();
            rank.fence = message.assignment().fence();
            rank.slot = message.assignment().slot();
            *answer.mutable_rank_address()->mutable_fence() = rank.fence;
            answer.mutable_rank_address()->set_address("here");
            alive = deliver(std::move(answer)) && alive;
          } else if (message.has_peer_addresses()) {
            *answer.mutable_rank_ready()->mutable_fence() = message.peer_addresses().fence();
            for (Rank& rank : ranks) {
              if (Same(rank.fence, message.peer_addresses().fence())) {
                rank.phase = lasp::v1::RankStatus::PHASE_READY;
              }
            }
            alive = deliver(std::move(answer)) && alive;
          } else if (message.has_start()) {
            for (Rank& rank : ranks) {
              if (Same(rank.fence, message.start().fence())) {
                rank.phase = lasp::v1::RankStatus::PHASE_TRAINING;
              }
            }
          } else if (message.has_stop()) {
            for (size_t i = 0; i < ranks.size(); ++i) {
              if (Same(ranks[i].fence, message.stop().fence())) {
                auto* exited = answer.mutable_rank_exited();
                *exited->mutable_fence() = ranks[i].fence;
                exited->set_exit_code(message.stop().mode() == lasp::v1::Stop::MODE_DRAIN ? 13
                                                                                          : 137);
                ranks.erase(ranks.begin() + static_cast<ptrdiff_t>(i));
                alive = deliver(answer) && alive;
                break;
              }
            }
          }
        }
        for (size_t i = 0; i < ranks.size() && alive; ++i) {
          Rank& rank = ranks[i];
          if (rank.phase != lasp::v1::RankStatus::PHASE_TRAINING) {
            continue;
          }
          ++rank.step;
          lasp::v1::ConnectRequest log;
          *log.mutable_log_chunk()->mutable_fence() = rank.fence;
          log.mutable_log_chunk()->set_offset(rank.log_offset);
          log.mutable_log_chunk()->set_data(
              absl::StrCat("2026-01-01T00:00:00.000000Z step ", rank.step, "\n"));
          rank.log_offset += static_cast<int64_t>(log.log_chunk().data().size());
          alive = deliver(std::move(log));
          if (rank.fence.rank() == 0) {
            lasp::v1::ConnectRequest steps;
            *steps.mutable_step_reports()->mutable_fence() = rank.fence;
            steps.mutable_step_reports()->add_steps()->set_step(rank.step);
            alive = deliver(std::move(steps)) && alive;
          }
          const int dice = std::uniform_int_distribution<int>(0, 99)(random);
          if (rank.step >= 5 || dice == 0) {
            lasp::v1::ConnectRequest exit;
            *exit.mutable_rank_exited()->mutable_fence() = rank.fence;
            exit.mutable_rank_exited()->set_exit_code(rank.step >= 5 ? kRankDone : kRankRetry);
            ranks.erase(ranks.begin() + static_cast<ptrdiff_t>(i));
            alive = deliver(std::move(exit));
            break;
          }
        }
        pause_[static_cast<size_t>(index)].Wait();
      }
      controller.Disconnect(*session);
      if (index == 0 && !agents_stop_ && silences_.fetch_add(1) == 0) {
        // Longer than the lease: its jobs start again elsewhere.
        std::this_thread::sleep_for(std::chrono::milliseconds(1'000));
      }
    }
  }

  static bool Same(const lasp::v1::Fence& a, const lasp::v1::Fence& b) {
    return a.uid() == b.uid() && a.generation() == b.generation() && a.rank() == b.rank();
  }

  // Waits for an answer, which comes from the controller's thread.
  template <typename Call>
  absl::StatusCode Ask(const Call& call) {
    struct Answer {
      Signal signal;
      std::atomic<int> code{-1};
    };

    auto answer = std::make_shared<Answer>();
    call([answer](const auto& result) {
      TheBait()->Touch("controller");
      answer->code = static_cast<int>(testing::GetStatus(result).code());
      answer->signal.Set();
    });
    while (answer->code < 0) {
      answer->signal.Wait();
    }
    return static_cast<absl::StatusCode>(answer->code.load());
  }

  static bool Suspends(Job::State state) {
    return state == Job::STATE_SUSPENDING || state == Job::STATE_SUSPENDED;
  }

  void RunSubmitter(int index) {
    std::mt19937 random(static_cast<unsigned>(index) + 100);
    JobController& controller = core_->controller();
    for (int i = 0; i < kJobsEach; ++i) {
      lasp::v1::CreateTrainingJobRequest request;
      request.set_parent("projects/default");
      request.set_training_job_id(absl::StrCat("job-", index, "-", i));
      request.set_request_id(absl::StrCat("request-", index, "-", i));
      auto* spec = request.mutable_training_job()->mutable_spec();
      spec->set_max_steps(5);
      spec->mutable_parallelism()->mutable_data_parallel()->set_size(1 + i % 4);
      spec->mutable_recovery()->set_max_restarts(50);
      const std::string name =
          absl::StrCat("projects/default/trainingJobs/", request.training_job_id());
      EXPECT_EQ(Ask([&](const auto& done) { controller.Create(request, Caller(), done); }),
                absl::StatusCode::kOk);
      switch (std::uniform_int_distribution<int>(0, 5)(random)) {
        case 0: {
          lasp::v1::CancelTrainingJobRequest cancel;
          cancel.set_name(name);
          Ask([&](const auto& done) { controller.Cancel(cancel, Caller(), done); });
          break;
        }
        case 1: {
          lasp::v1::SuspendTrainingJobRequest suspend;
          suspend.set_name(name);
          Ask([&](const auto& done) { controller.Suspend(suspend, Caller(), done); });
          lasp::v1::ResumeTrainingJobRequest resume;
          resume.set_name(name);
          // It may become SUSPENDED right after the refusal.
          while (Ask([&](const auto& done) { controller.Resume(resume, Caller(), done); }) ==
                     absl::StatusCode::kFailedPrecondition &&
                 Suspends(core_->jobs().Find(name)->job.state())) {
          }
          break;
        }
        case 2: {
          lasp::v1::UpdateTrainingJobRequest update;
          update.mutable_training_job()->set_name(name);
          update.mutable_training_job()->set_display_name("renamed");
          Ask([&](const auto& done) { controller.Update(update, Caller(), done); });
          break;
        }
        case 3: {
          lasp::v1::DeleteTrainingJobRequest remove;
          remove.set_name(name);
          Ask([&](const auto& done) { controller.Delete(remove, Caller(), done); });
          break;
        }
        default:
          break;
      }
    }
  }

  // A mirror of the jobs, kept by watching only; it breaks off and resumes by its token.
  void RunWatcher(std::map<std::string, Job::State>* mirror) {
    Signal signal;
    std::string token;
    int rounds = 0;
    // At the end one more look, after the last change.
    for (bool last = false; !last;) {
      last = readers_stop_;
      auto watch = core_->watches().Subscribe(token, [&signal] {
        TheBait()->Touch("watch");
        signal.Set();
      });
      if (!watch.ok()) {
        EXPECT_EQ(watch.status().code(), absl::StatusCode::kOutOfRange);
        token.clear();
        mirror->clear();
        last = false;
        continue;
      }
      for (bool more = true; more && (!readers_stop_ || last || ++rounds % 100 != 0);) {
        const absl::StatusOr<WatchBatch> batch = (*watch)->Next(7);
        if (!batch.ok()) {
          EXPECT_EQ(batch.status().code(), absl::StatusCode::kOutOfRange);
          token.clear();
          mirror->clear();
          last = false;
          break;
        }
        for (const JobChange& change : batch->changes) {
          if (change.job != nullptr) {
            (*mirror)[change.job->job.name()] = change.job->job.state();
          } else {
            mirror->erase(change.deleted_name);
          }
        }
        token = batch->resume_token;
        if (batch->changes.empty() && !batch->bookmark) {
          if (last) {
            more = false;
          } else {
            signal.Wait();
            more = ++rounds % 50 != 0;
          }
        }
      }
    }
  }

  void RunReader() {
    while (!readers_stop_) {
      for (const JobViewPtr& view : core_->jobs().All()) {
        const Job job = view->ToProto();
        EXPECT_FALSE(job.name().empty());
      }
      core_->jobs().CreatedBefore(INT64_MAX, 10);
      for (const WorkerViewPtr& view : core_->workers().All()) {
        EXPECT_LE(view->ToProto().slots_size(), kSlots);
      }
      core_->store().health().IgnoreError();
      core_->store().Transitions(1, 10).IgnoreError();
      wait_.Wait();
    }
  }

  void RunFollower() {
    Signal signal;
    while (!readers_stop_) {
      const auto jobs = core_->jobs().CreatedBefore(INT64_MAX, 5);
      if (jobs.empty()) {
        signal.Wait();
        continue;
      }
      const JobViewPtr& job = jobs.back();
      auto rows = core_->metrics().Subscribe(job->id, {}, [&signal] {
        TheBait()->Touch("metrics");
        signal.Set();
      });
      auto lines = core_->logs().Subscribe(job->job.uid(), [&signal] {
        TheBait()->Touch("log");
        signal.Set();
      });
      int64_t offset = 0;
      for (int i = 0; i < 10 && !readers_stop_; ++i) {
        rows->Next(10, /*thorough=*/i % 2 == 0).IgnoreError();
        const auto page =
            core_->logs().Read({.uid = job->job.uid(), .generation = 1, .rank = 0}, offset, 1'000);
        if (page.ok()) {
          offset = page->next_offset;
        }
        signal.Wait();
      }
    }
  }

  // The other side of a planted race: touches it without any order to the part's own thread.
  void RunBait() {
    while (TheBait()->planted() && !readers_stop_) {
      TheBait()->TouchPlanted();
      std::this_thread::yield();
    }
  }

  void RunScheduler() {
    SlotIndex workers;
    for (int worker = 0; worker < 50; ++worker) {
      workers.Set(worker, 4);
    }
    const std::vector<SchedulerJob> jobs(
        20, SchedulerJob{.world_size = 8, .group_size = 4, .avoid = {1}});
    for (int i = 0; i < 200; ++i) {
      TheBait()->Touch("scheduler");
      SlotIndex slots = workers;
      EXPECT_EQ(MakeSchedule(&slots, jobs, 200).placements.size(), 20);
    }
  }

  testing::TempDirectory directory_;
  TouchingObserver observer_;
  std::unique_ptr<ServerCore> core_;
  std::atomic<bool> agents_stop_{false};
  std::atomic<bool> readers_stop_{false};
  std::atomic<int> silences_{0};
  Signal pause_[kAgents];
  Signal wait_;
};

TEST_F(ConcurrencyTest, EverythingAtOnce) {
  std::vector<std::thread> agents;
  agents.reserve(kAgents);
  std::vector<std::thread> submitters;
  submitters.reserve(kSubmitters);
  std::vector<std::map<std::string, Job::State>> mirrors(2);
  std::vector<std::thread> readers;
  readers.reserve(mirrors.size() + 5);
  for (int i = 0; i < kAgents; ++i) {
    agents.emplace_back([this, i] { RunAgent(i); });
  }
  for (auto& mirror : mirrors) {
    readers.emplace_back([this, &mirror] { RunWatcher(&mirror); });
  }
  readers.emplace_back([this] { RunReader(); });
  readers.emplace_back([this] { RunFollower(); });
  readers.emplace_back([this] { RunScheduler(); });
  readers.emplace_back([this] { RunScheduler(); });
  readers.emplace_back([this] { RunBait(); });
  for (int i = 0; i < kSubmitters; ++i) {
    submitters.emplace_back([this, i] { RunSubmitter(i); });
  }
  for (std::thread& thread : submitters) {
    thread.join();
  }
  // Every job comes to its end.
  const absl::Duration deadline = SystemClock().Monotonic() + absl::Seconds(90);
  bool finished = false;
  while (!finished && SystemClock().Monotonic() < deadline) {
    finished = true;
    for (const JobViewPtr& view : core_->jobs().All()) {
      finished = finished && IsFinished(view->job.state());
    }
    wait_.Wait();
  }
  EXPECT_TRUE(finished);
  for (const JobViewPtr& view : core_->jobs().All()) {
    EXPECT_TRUE(IsFinished(view->job.state()))
        << view->job.name() << " " << view->job.reason() << ": " << view->job.message();
  }
  agents_stop_ = true;
  for (std::thread& thread : agents) {
    thread.join();
  }
  EXPECT_TRUE(core_->controller().Flush());
  readers_stop_ = true;
  for (std::thread& thread : readers) {
    thread.join();
  }
  std::map<std::string, Job::State> truth;
  int succeeded = 0;
  for (const JobViewPtr& view : core_->jobs().All()) {
    truth[view->job.name()] = view->job.state();
    succeeded += view->job.state() == Job::STATE_SUCCEEDED ? 1 : 0;
  }
  for (const auto& mirror : mirrors) {
    EXPECT_EQ(mirror, truth);
  }
  EXPECT_GT(succeeded, 30);
  EXPECT_GT(observer_.commits, 0);
  for (const WorkerViewPtr& view : core_->workers().All()) {
    for (const auto& slot : view->worker.slots()) {
      EXPECT_EQ(slot.training_job(), "") << view->worker.name();
    }
  }
}

}  // namespace
}  // namespace lasp::server
