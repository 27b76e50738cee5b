#include "worker/agent/outbox.h"

#include <algorithm>
#include <utility>

namespace lasp::worker {
namespace {

// How soon new log lines are noticed; nobody tells of each.
constexpr absl::Duration kLogPollInterval = absl::Milliseconds(100);

}  // namespace

Outbox::Outbox(LogShipper* logs, const Clock* clock, std::function<lasp::v1::Heartbeat()> heartbeat,
               const ReportLimits& limits)
    : logs_(logs), clock_(clock), heartbeat_(std::move(heartbeat)), reports_(limits) {}

void Outbox::NoteChange() {
  ++changes_;
  changed_.NotifyAll();
}

void Outbox::ReadLogsOnThread() {
  log_reader_ = std::make_unique<LogReader>(logs_, [this] {
    MutexLock lock(&mutex_);
    NoteChange();
  });
}

std::optional<lasp::v1::LogChunk> Outbox::NextLog() {
  if (log_reader_ == nullptr) {
    return logs_->Next();
  }
  std::optional<lasp::v1::LogChunk> chunk = logs_->Take();
  if (!chunk.has_value()) {
    log_reader_->Ask();
  }
  return chunk;
}

void Outbox::BeginSession(lasp::v1::ConnectRequest hello) {
  MutexLock lock(&mutex_);
  welcomed_ = false;
  control_.clear();
  control_.push_back(std::move(hello));
  reports_.BeginSession();
  logs_->BeginSession();
}

void Outbox::Welcome(absl::Duration heartbeat_interval) {
  MutexLock lock(&mutex_);
  welcomed_ = true;
  heartbeat_interval_ = heartbeat_interval;
  next_heartbeat_ = clock_->Monotonic() + heartbeat_interval;
  NoteChange();
}

void Outbox::EndSession() {
  MutexLock lock(&mutex_);
  welcomed_ = false;
  control_.clear();
}

bool Outbox::welcomed() const {
  MutexLock lock(&mutex_);
  return welcomed_;
}

void Outbox::AddControl(lasp::v1::ConnectRequest message) {
  MutexLock lock(&mutex_);
  if (welcomed_) {
    control_.push_back(std::move(message));
    NoteChange();
  }
}

void Outbox::AddStep(const lasp::v1::Fence& fence, lasp::v1::StepMetrics step) {
  MutexLock lock(&mutex_);
  reports_.AddStep(fence, std::move(step));
  NoteChange();
}

void Outbox::AddShard(lasp::v1::ShardWritten shard) {
  MutexLock lock(&mutex_);
  reports_.AddShard(std::move(shard));
  NoteChange();
}

void Outbox::AddExit(lasp::v1::RankExited exited) {
  MutexLock lock(&mutex_);
  reports_.AddExit(std::move(exited));
  NoteChange();
}

void Outbox::Acknowledge(int64_t sequence) {
  MutexLock lock(&mutex_);
  reports_.Acknowledge(sequence);
  NoteChange();
}

std::optional<lasp::v1::ConnectRequest> Outbox::NextUrgent(absl::Duration now,
                                                           bool* heartbeat_due) {
  std::optional<lasp::v1::ConnectRequest> message;
  if (!control_.empty()) {
    message = std::move(control_.front());
    control_.pop_front();
    message->set_sequence(next_sequence_++);
  } else if (welcomed_ && now >= next_heartbeat_) {
    *heartbeat_due = true;
    next_heartbeat_ = now + heartbeat_interval_;
    message.emplace().set_sequence(next_sequence_++);
  } else if (welcomed_) {
    message = reports_.Next(now, &next_sequence_);
  }
  return message;
}

std::optional<lasp::v1::ConnectRequest> Outbox::Next(absl::Duration max_wait) {
  const absl::Duration deadline = clock_->Monotonic() + max_wait;
  for (;;) {
    bool may_log = false;
    bool heartbeat_due = false;
    int64_t seen_changes = 0;
    std::optional<lasp::v1::ConnectRequest> message;
    {
      MutexLock lock(&mutex_);
      message = NextUrgent(clock_->Monotonic(), &heartbeat_due);
      may_log = welcomed_;
      seen_changes = changes_;
    }
    if (heartbeat_due) {
      *message->mutable_heartbeat() = heartbeat_();
    }
    if (message.has_value()) {
      return message;
    }
    if (may_log) {
      if (std::optional<lasp::v1::LogChunk> chunk = NextLog()) {
        MutexLock lock(&mutex_);
        message.emplace().set_sequence(next_sequence_++);
        *message->mutable_log_chunk() = *std::move(chunk);
        return message;
      }
    }
    MutexLock lock(&mutex_);
    const absl::Duration now = clock_->Monotonic();
    if (std::exchange(woken_, false) || now >= deadline) {
      return std::nullopt;
    }
    if (changes_ != seen_changes) {
      continue;
    }
    absl::Duration until = std::min(deadline, now + kLogPollInterval);
    if (welcomed_) {
      until = std::min({until, next_heartbeat_, reports_.NextDue()});
    }
    changed_.WaitWithTimeout(&mutex_, std::max(until - now, absl::ZeroDuration()));
  }
}

void Outbox::Wake() {
  MutexLock lock(&mutex_);
  woken_ = true;
  NoteChange();
}

std::vector<lasp::v1::RankStatus> Outbox::EndedRanks() const {
  MutexLock lock(&mutex_);
  return reports_.EndedRanks();
}

bool Outbox::AllAcknowledged() const {
  MutexLock lock(&mutex_);
  return reports_.empty();
}

size_t Outbox::buffered_steps() const {
  MutexLock lock(&mutex_);
  return reports_.step_count();
}

int64_t Outbox::thinned_steps() const {
  MutexLock lock(&mutex_);
  return reports_.thinned_steps();
}

}  // namespace lasp::worker
