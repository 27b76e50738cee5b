// The coordinator's decisions under a test's control: a real store, a clock that stands still, and
// agents that do what they are told. No thread but the store's.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/protocol_range.h"
#include "server/checkpoint_worker.h"
#include "server/job_engine.h"
#include "server/sqlite_job_store.h"
#include "tests/server/core/fake_agent.h"
#include "tests/server/core/fake_clock.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"

namespace lasp::server {

using Job = lasp::v1::TrainingJob;

// Holds tasks until the harness does them.
class QueuedDisk final : public CheckpointDisk {
 public:
  void SetSink(std::function<void(CheckpointOutcome)> /*sink*/) override {}

  void Start(CheckpointTask task) override { tasks.push_back(std::move(task)); }

  std::vector<FoundCheckpoint> FindCommitted(const std::string& folder) const override {
    std::vector<FoundCheckpoint> beneath;
    for (const FoundCheckpoint& one : found) {
      if (absl::StartsWith(one.folder, folder + "/")) {
        beneath.push_back(one);
      }
    }
    return beneath;
  }

  std::deque<CheckpointTask> tasks;
  // What lies on the disk at a start.
  std::vector<FoundCheckpoint> found;
};

class EngineHarness {
 public:
  explicit EngineHarness(CoreOptions options = {}) : options_(std::move(options)) { Start(); }

  ~EngineHarness() { Stop(); }

  // The process dies: nothing is said to agents, what is not committed is lost.
  void Crash() {
    for (auto& [id, agent] : agents) {
      agent->link = nullptr;
      agent->session = nullptr;
    }
    Stop();
    Start();
  }

  // --- agents ---

  FakeAgent* AddAgent(const std::string& id, int slots, int gpus = 0) {
    auto agent = std::make_unique<FakeAgent>();
    agent->id = id;
    agent->slots = slots;
    agent->gpus = gpus;
    FakeAgent* raw = (agents[id] = std::move(agent)).get();
    Connect(raw);
    return raw;
  }

  void Connect(FakeAgent* agent) {
    lasp::v1::Hello hello;
    hello.set_worker_id(agent->id);
    hello.set_incarnation(agent->incarnation);
    hello.set_protocol_version(kWorkerProtocol.oldest);
    hello.set_newest_protocol_version(agent->newest_protocol);
    for (int i = 0; i < agent->gpus + agent->slots; ++i) {
      auto* slot = hello.add_slots();
      slot->set_index(i);
      slot->set_kind(i < agent->gpus ? lasp::v1::Slot::KIND_GPU : lasp::v1::Slot::KIND_CPU);
      if (i < agent->gpus) {
        slot->mutable_gpu()->set_uuid(absl::StrCat("GPU-", agent->id, "-", i));
      }
    }
    for (const FakeRank& rank : agent->ranks) {
      auto* status = hello.add_ranks();
      *status->mutable_fence() = rank.fence;
      status->set_slot(rank.slot);
      status->set_phase(rank.phase);
    }
    agent->link = std::make_shared<RecordingLink>();
    agent->session =
        std::make_shared<AgentSession>(agent->id, leases->Grant(agent->id), agent->link);
    engine->Connected(agent->session, hello,
                      std::vector<int64_t>(static_cast<size_t>(hello.ranks_size()), 0));
    Pump();
  }

  void Disconnect(FakeAgent* agent) {
    engine->Disconnected(agent->session);
    agent->session = nullptr;
    agent->link = nullptr;
    Pump();
  }

  // A new process on the same host: the ranks of the old one have been killed.
  void RestartAgent(FakeAgent* agent) {
    Disconnect(agent);
    agent->incarnation += "+";
    agent->ranks.clear();
    agent->sequence = 0;
    Connect(agent);
  }

  void Deliver(FakeAgent* agent, lasp::v1::ConnectRequest message) {
    message.set_sequence(++agent->sequence);
    if (agent->session != nullptr) {
      agent->session->lease().Renew(clock);
      engine->Received(agent->session, std::move(message));
    }
  }

  void Exit(FakeAgent* agent, const FakeRank& rank, int code, const std::string& why = "") {
    lasp::v1::ConnectRequest message;
    auto* exited = message.mutable_rank_exited();
    *exited->mutable_fence() = rank.fence;
    exited->set_slot(rank.slot);
    exited->set_exit_code(code);
    if (!why.empty()) {
      exited->mutable_status()->set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
      exited->mutable_status()->set_message(why);
    }
    agent->Forget(message.rank_exited().fence());
    Deliver(agent, std::move(message));
    Pump();
  }

  // Every rank of the job, wherever it is, exits with `code`.
  void ExitAll(const std::string& job, int code) {
    for (auto& [id, agent] : agents) {
      while (agent->Find(job) != nullptr) {
        const FakeRank rank = *agent->Find(job);
        Exit(agent.get(), rank, code);
      }
    }
  }

  void Report(FakeAgent* agent, const FakeRank& rank, int64_t first, int64_t last) {
    lasp::v1::ConnectRequest message;
    *message.mutable_step_reports()->mutable_fence() = rank.fence;
    for (int64_t step = first; step <= last; ++step) {
      auto* row = message.mutable_step_reports()->add_steps();
      row->set_step(step);
      row->set_loss(10.0 / static_cast<double>(step));
      row->set_step_seconds(0.5);
    }
    Deliver(agent, std::move(message));
    Pump();
  }

  // --- users ---

  static lasp::v1::CreateTrainingJobRequest Request(const std::string& id, int sp, int dp,
                                                    int max_restarts = 5) {
    lasp::v1::CreateTrainingJobRequest request;
    request.set_parent("projects/default");
    request.set_training_job_id(id);
    auto* spec = request.mutable_training_job()->mutable_spec();
    spec->mutable_parallelism()->mutable_sequence_parallel()->set_size(sp);
    spec->mutable_parallelism()->mutable_data_parallel()->set_size(dp);
    spec->mutable_recovery()->set_max_restarts(max_restarts);
    spec->mutable_recovery()->set_max_failures_without_checkpoint(0);
    spec->set_max_steps(100);
    return request;
  }

  static std::string Name(const std::string& id) {
    return absl::StrCat("projects/default/trainingJobs/", id);
  }

  absl::StatusOr<JobViewPtr> Create(const lasp::v1::CreateTrainingJobRequest& request) {
    return Call([&](const JobCallback& done) { engine->Create(request, caller, done); });
  }

  // Submits a job and gives its name.
  std::string Submit(const std::string& id, int sp = 1, int dp = 1, int max_restarts = 5) {
    const auto created = Create(Request(id, sp, dp, max_restarts));
    LASP_EXPECT_OK(created);
    Pump();
    return Name(id);
  }

  absl::StatusOr<JobViewPtr> Cancel(const std::string& name, const std::string& request_id = "") {
    lasp::v1::CancelTrainingJobRequest request;
    request.set_name(name);
    request.set_request_id(request_id);
    return Call([&](const JobCallback& done) { engine->Cancel(request, caller, done); });
  }

  absl::StatusOr<JobViewPtr> Suspend(const std::string& name, const std::string& request_id = "") {
    lasp::v1::SuspendTrainingJobRequest request;
    request.set_name(name);
    request.set_request_id(request_id);
    return Call([&](const JobCallback& done) { engine->Suspend(request, caller, done); });
  }

  absl::StatusOr<JobViewPtr> Resume(const std::string& name, const std::string& request_id = "") {
    lasp::v1::ResumeTrainingJobRequest request;
    request.set_name(name);
    request.set_request_id(request_id);
    return Call([&](const JobCallback& done) { engine->Resume(request, caller, done); });
  }

  absl::Status Delete(const std::string& name, const std::string& etag = "") {
    lasp::v1::DeleteTrainingJobRequest request;
    request.set_name(name);
    request.set_etag(etag);
    absl::Status answer = absl::UnknownError("no answer");
    engine->Delete(request, caller, [&answer](absl::Status status) { answer = std::move(status); });
    Pump();
    return answer;
  }

  absl::StatusOr<WorkerViewPtr> Drain(const std::string& worker, bool undo = false) {
    lasp::v1::DrainWorkerRequest request;
    request.set_name("workers/" + worker);
    request.set_undo(undo);
    absl::StatusOr<WorkerViewPtr> answer = absl::UnknownError("no answer");
    engine->DrainWorker(request, caller, [&answer](absl::StatusOr<WorkerViewPtr> view) {
      answer = std::move(view);
    });
    Pump();
    return answer;
  }

  template <typename Method>
  absl::StatusOr<JobViewPtr> Call(const Method& method) {
    absl::StatusOr<JobViewPtr> answer = absl::UnknownError("no answer");
    method([&answer](absl::StatusOr<JobViewPtr> view) { answer = std::move(view); });
    Pump();
    return answer;
  }

  // --- time ---

  // Time passes in sweeps of 200 ms; agents that are connected send heartbeats.
  void Advance(absl::Duration duration) {
    for (absl::Duration passed; passed < duration; passed += absl::Milliseconds(200)) {
      clock.Advance(absl::Milliseconds(200));
      for (auto& [id, agent] : agents) {
        if (agent->session != nullptr) {
          agent->session->lease().Renew(clock);
        }
      }
      engine->Sweep();
      Pump();
    }
  }

  // Commits what has been decided and lets agents react, until nothing more happens.
  void Pump() {
    bool busy = true;
    while (busy) {
      engine->RunScheduler();
      busy = Settle();
      for (auto& [id, agent] : agents) {
        while (agent->link != nullptr && !agent->link->messages.empty()) {
          const lasp::v1::ConnectResponse message = std::move(agent->link->messages.front());
          agent->link->messages.pop_front();
          busy = true;
          for (lasp::v1::ConnectRequest& answer : agent->React(message)) {
            Deliver(agent.get(), std::move(answer));
          }
        }
      }
      busy = DoDiskTask() || busy;
    }
  }

  // --- what is seen ---

  // By value: the catalogue's view may be replaced at any time.
  Job Get(const std::string& name) const {
    const JobViewPtr view = jobs->Find(name);
    return view == nullptr ? Job() : view->ToProto();
  }

  Job::State State(const std::string& name) const { return Get(name).state(); }

  std::vector<std::string> TransitionReasons(const std::string& name) const {
    std::vector<std::string> reasons;
    const auto transitions = store->Transitions(jobs->Find(name)->id, 100);
    for (const auto& transition : transitions.value()) {
      reasons.push_back(transition.reason());
    }
    return reasons;
  }

  // No slot is claimed twice, and what agents run is what the coordinator believes.
  void ExpectSlotsAgree() const {
    for (const auto& view : workers->All()) {
      const auto agent = agents.find(view->worker.name().substr(8));
      if (agent == agents.end() || agent->second->session == nullptr) {
        continue;
      }
      size_t held = 0;
      for (const auto& slot : view->worker.slots()) {
        held += slot.training_job().empty() ? 0 : 1;
      }
      EXPECT_EQ(held, agent->second->ranks.size()) << view->worker.name();
    }
  }

  testing::FakeClock clock;
  // Where checkpoints are kept, if CoreOptions says so. Turned off: the disk does nothing.
  bool disk_works = true;
  QueuedDisk disk;
  std::unique_ptr<CheckpointCatalog> checkpoints;
  std::map<std::string, std::unique_ptr<FakeAgent>> agents;
  std::unique_ptr<SqliteJobStore> store;
  std::unique_ptr<JobCatalog> jobs;
  std::unique_ptr<WorkerCatalog> workers;
  std::unique_ptr<WatchHub> watches;
  std::unique_ptr<EventLog> events;
  std::unique_ptr<MetricsHub> metrics;
  std::unique_ptr<LogStore> logs;
  std::unique_ptr<LogRemover> log_remover;
  std::unique_ptr<LeaseTable> leases;
  std::unique_ptr<RefusalLog> refusals;
  std::unique_ptr<JobEngine> engine;
  // Who asks.
  Caller caller;

 private:
  void Start() {
    SqliteJobStore::Options store_options;
    store_options.path = directory_.Join("store.sqlite");
    store = SqliteJobStore::Open(store_options, &observer_).value();
    jobs = std::make_unique<JobCatalog>();
    workers = std::make_unique<WorkerCatalog>();
    watches =
        std::make_unique<WatchHub>(jobs.get(), store->uuid(), &clock, options_.bookmark_interval);
    events = std::make_unique<EventLog>(static_cast<size_t>(options_.event_history));
    metrics = std::make_unique<MetricsHub>(store.get());
    logs = std::make_unique<LogStore>(directory_.Join("logs"), 1 << 20, 1 << 18);
    log_remover =
        std::make_unique<LogRemover>([this](const std::string& uid) { logs->DeleteJob(uid); });
    leases = std::make_unique<LeaseTable>(&clock, options_.lease_duration);
    refusals = std::make_unique<RefusalLog>(&clock);
    checkpoints = std::make_unique<CheckpointCatalog>();
    disk.tasks.clear();
    engine = std::make_unique<JobEngine>(
        options_, CoreParts{.clock = &clock,
                            .store = store.get(),
                            .jobs = jobs.get(),
                            .workers = workers.get(),
                            .watches = watches.get(),
                            .events = events.get(),
                            .metrics = metrics.get(),
                            .logs = logs.get(),
                            .log_remover = log_remover.get(),
                            .leases = leases.get(),
                            .refusals = refusals.get(),
                            .checkpoints = checkpoints.get(),
                            .checkpoint_disk = options_.checkpoint_root.empty() ? nullptr : &disk,
                            .observer = &observer_});
    LASP_ASSERT_OK(engine->Restore());
    Pump();
  }

  void Stop() {
    engine = nullptr;
    log_remover = nullptr;
    store = nullptr;
  }

  bool DoDiskTask() {
    if (!disk_works || disk.tasks.empty()) {
      return false;
    }
    const CheckpointTask task = std::move(disk.tasks.front());
    disk.tasks.pop_front();
    const CheckpointFolder folder(options_.checkpoint_root);
    engine->CheckpointDone(DoCheckpointTask(folder, task, [] { return false; }));
    return true;
  }

  // One unit, committed and published; false where there was nothing.
  bool Settle() {
    CommitUnit unit = engine->TakeUnit();
    if (unit.empty()) {
      return false;
    }
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    store->Commit(std::move(unit.mutations), [&] {
      const std::lock_guard<std::mutex> lock(mutex);
      done = true;
      changed.notify_all();
    });
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait_for(lock, std::chrono::seconds(30), [&done] { return done; });
    EXPECT_TRUE(done);
    engine->Publish(unit);
    return true;
  }

  const CoreOptions options_;
  testing::TempDirectory directory_;
  CoreObserver observer_;
};

}  // namespace lasp::server
