#include "tests/bench/control_plane/simulated_agents.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <deque>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lasp/v1/worker_service.grpc.pb.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/protocol_range.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/version.h"

namespace lasp::bench {
namespace {

constexpr int kConnectingAtOnce = 200;
// Slices into which the agents' heartbeats are spread.
constexpr absl::Duration kTick = absl::Milliseconds(10);

}  // namespace

// One agent with one slot.
class SimulatedAgent final
    : public grpc::ClientBidiReactor<v1::ConnectRequest, v1::ConnectResponse> {
 public:
  SimulatedAgent(const AgentOptions& options, int number)
      : options_(options),
        id_(absl::StrCat("agent-", number)),
        stub_(v1::WorkerService::NewStub(NewChannel(options.worker_address))) {}

  void Start() {
    v1::ConnectRequest request;
    v1::Hello& hello = *request.mutable_hello();
    hello.set_worker_id(id_);
    hello.set_incarnation(NewUuid());
    hello.set_protocol_version(kWorkerProtocol.oldest);
    hello.set_version(Version());
    hello.set_host_name(id_);
    hello.add_slots()->set_kind(v1::Slot::KIND_CPU);
    stub_->async()->Connect(&context_, this);
    // The driver's thread writes too.
    AddHold();
    StartRead(&response_);
    StartCall();
    Send(std::move(request));
  }

  // Heartbeat, and what a running rank has to report. By the driver only.
  void Beat(absl::Time now) {
    if (!registered_) {
      return;
    }
    v1::ConnectRequest heartbeat;
    heartbeat.mutable_heartbeat();
    std::vector<v1::ConnectRequest> reports;
    {
      MutexLock lock(&mutex_);
      if (rank_ != nullptr) {
        v1::RankStatus& status = *heartbeat.mutable_heartbeat()->add_ranks();
        *status.mutable_fence() = rank_->fence;
        status.set_phase(rank_->training ? v1::RankStatus::PHASE_TRAINING
                                         : v1::RankStatus::PHASE_STARTING);
        status.set_step(rank_->reported);
        Report(now, &reports);
      }
    }
    Send(std::move(heartbeat));
    for (v1::ConnectRequest& report : reports) {
      Send(std::move(report));
    }
  }

  void Stop() {
    stopping_ = true;
    context_.TryCancel();
    RemoveHold();
  }

  bool AwaitDone(absl::Time deadline) {
    MutexLock lock(&mutex_);
    while (!done_ && absl::Now() < deadline) {
      ended_.WaitWithTimeout(&mutex_, deadline - absl::Now());
    }
    return done_;
  }

  void OnReadDone(bool ok) override {
    if (ok) {
      Handle();
      response_.Clear();
      StartRead(&response_);
    }
  }

  void OnWriteDone(bool ok) override {
    const v1::ConnectRequest* next = nullptr;
    {
      MutexLock lock(&mutex_);
      outgoing_.pop_front();
      if (!ok) {
        outgoing_.clear();
      } else if (!outgoing_.empty()) {
        next = &outgoing_.front();
      }
    }
    if (next != nullptr) {
      StartWrite(next);
    }
  }

  void OnDone(const grpc::Status& status) override {
    if (!stopping_) {
      lost_ = true;
      std::fprintf(stderr, "%s lost: %s\n", id_.c_str(), status.error_message().c_str());
    }
    MutexLock lock(&mutex_);
    registered_ = false;
    done_ = true;
    ended_.NotifyAll();
  }

  bool registered() const { return registered_; }

  bool lost() const { return lost_; }

  void AddTo(AgentTotals* totals) const {
    totals->registered += registered_ ? 1 : 0;
    totals->lost += lost_ ? 1 : 0;
    totals->assignments += assignments_;
    totals->finished_ranks += finished_;
    totals->steps += steps_;
    totals->log_lines += lines_;
  }

 private:
  struct Rank {
    v1::Fence fence;
    bool training = false;
    absl::Time start;
    absl::Time last_report;
    int64_t max_steps = 0;
    int64_t reported = 0;
    int64_t log_offset = 0;
  };

  void Handle() {
    v1::ConnectRequest answer;
    switch (response_.body_case()) {
      case v1::ConnectResponse::kWelcome:
        registered_ = true;
        return;
      case v1::ConnectResponse::kAssignment: {
        ++assignments_;
        MutexLock lock(&mutex_);
        rank_ = std::make_unique<Rank>();
        rank_->fence = response_.assignment().fence();
        rank_->max_steps = response_.assignment().spec().max_steps();
        *answer.mutable_rank_address()->mutable_fence() = rank_->fence;
        answer.mutable_rank_address()->set_address("127.0.0.1:1");
        break;
      }
      case v1::ConnectResponse::kPeerAddresses:
        *answer.mutable_rank_ready()->mutable_fence() = response_.peer_addresses().fence();
        break;
      case v1::ConnectResponse::kStart: {
        MutexLock lock(&mutex_);
        if (rank_ != nullptr) {
          rank_->training = true;
          rank_->start = absl::Now();
          rank_->last_report = rank_->start;
        }
        return;
      }
      case v1::ConnectResponse::kStop: {
        MutexLock lock(&mutex_);
        *answer.mutable_rank_exited()->mutable_fence() = response_.stop().fence();
        answer.mutable_rank_exited()->set_exit_code(128 + 9);
        rank_ = nullptr;
        break;
      }
      default:
        return;
    }
    Send(std::move(answer));
  }

  void Talk(absl::Time now, std::vector<v1::ConnectRequest>* reports) REQUIRES_LOCK(mutex_) {
    auto& chunk = *reports->emplace_back().mutable_log_chunk();
    *chunk.mutable_fence() = rank_->fence;
    chunk.set_offset(rank_->log_offset);
    chunk.set_data(absl::StrCat(absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", now, absl::UTCTimeZone()),
                                " step ", rank_->reported,
                                " loss 2.71 tokens_per_second 1000000\n"));
    rank_->log_offset += static_cast<int64_t>(chunk.data().size());
    ++lines_;
  }

  // Steps since the last report, and the end.
  void Report(absl::Time now, std::vector<v1::ConnectRequest>* reports) REQUIRES_LOCK(mutex_) {
    Rank& rank = *rank_;
    const auto step = std::min<int64_t>((now - rank.start) / options_.step_time, rank.max_steps);
    const bool over = rank.training && step == rank.max_steps;
    if (rank.training && rank.max_steps >= options_.talkative_steps) {
      Talk(now, reports);
    }
    if (!rank.training || (!over && now - rank.last_report < options_.report_interval)) {
      return;
    }
    rank.last_report = now;
    auto& steps = *reports->emplace_back().mutable_step_reports();
    *steps.mutable_fence() = rank.fence;
    while (rank.reported < step) {
      v1::StepMetrics& row = *steps.add_steps();
      row.set_step(++rank.reported);
      row.set_loss(5.0 / static_cast<double>(rank.reported));
      row.set_gradient_norm(1);
      row.set_learning_rate(1e-3);
      row.set_tokens_per_second(1e6);
      row.set_generation(rank.fence.generation());
      ++steps_;
    }
    if (over) {
      auto& exited = *reports->emplace_back().mutable_rank_exited();
      *exited.mutable_fence() = rank.fence;
      exited.set_step(rank.reported);
      ++finished_;
      rank_ = nullptr;
    }
  }

  void Send(v1::ConnectRequest request) {
    const v1::ConnectRequest* first = nullptr;
    {
      MutexLock lock(&mutex_);
      if (done_) {
        return;
      }
      request.set_sequence(++sequence_);
      outgoing_.push_back(std::move(request));
      if (outgoing_.size() == 1) {
        first = &outgoing_.front();
      }
    }
    if (first != nullptr) {
      StartWrite(first);
    }
  }

  const AgentOptions& options_;
  const std::string id_;
  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  grpc::ClientContext context_;
  v1::ConnectResponse response_;
  std::atomic<bool> registered_ = false;
  std::atomic<bool> lost_ = false;
  std::atomic<bool> stopping_ = false;
  std::atomic<int64_t> assignments_ = 0;
  std::atomic<int64_t> finished_ = 0;
  std::atomic<int64_t> steps_ = 0;
  std::atomic<int64_t> lines_ = 0;
  Mutex mutex_;
  CondVar ended_;
  bool done_ GUARDED_BY(mutex_) = false;
  int64_t sequence_ GUARDED_BY(mutex_) = 0;
  std::deque<v1::ConnectRequest> outgoing_ GUARDED_BY(mutex_);
  std::unique_ptr<Rank> rank_ GUARDED_BY(mutex_);
};

SimulatedAgents::SimulatedAgents(const AgentOptions& options) : options_(options) {
  for (int i = 0; i < options.count; ++i) {
    agents_.push_back(std::make_shared<SimulatedAgent>(options_, i));
  }
  driver_ = std::thread([this] { Drive(); });
}

SimulatedAgents::~SimulatedAgents() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    stop_.NotifyAll();
  }
  driver_.join();
  for (const auto& agent : agents_) {
    agent->Stop();
  }
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  for (const auto& agent : agents_) {
    agent->AwaitDone(deadline);
  }
}

// Starts the agents, then beats each once an interval, evenly spread.
void SimulatedAgents::Drive() {
  const auto slices =
      std::max<int64_t>(1, static_cast<int64_t>(options_.heartbeat_interval / kTick));
  size_t started = 0;
  absl::Time next = absl::Now();
  for (int64_t tick = 0;; ++tick) {
    int connecting = 0;
    for (size_t i = 0; i < started && started < agents_.size(); ++i) {
      connecting += agents_[i]->registered() || agents_[i]->lost() ? 0 : 1;
    }
    for (; started < agents_.size() && connecting < kConnectingAtOnce; ++started, ++connecting) {
      agents_[started]->Start();
    }
    for (size_t i = static_cast<size_t>(tick % slices); i < started;
         i += static_cast<size_t>(slices)) {
      agents_[i]->Beat(absl::Now());
    }
    next += kTick;
    MutexLock lock(&mutex_);
    while (!stopping_ && absl::Now() < next) {
      stop_.WaitWithTimeout(&mutex_, next - absl::Now());
    }
    if (stopping_) {
      // Those that never started have nothing to stop.
      agents_.resize(started);
      return;
    }
  }
}

bool SimulatedAgents::AwaitRegistered(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (absl::Now() < deadline) {
    if (Totals().registered == options_.count) {
      return true;
    }
    absl::SleepFor(absl::Milliseconds(50));
  }
  return false;
}

AgentTotals SimulatedAgents::Totals() const {
  AgentTotals totals;
  for (const auto& agent : agents_) {
    agent->AddTo(&totals);
  }
  return totals;
}

}  // namespace lasp::bench
