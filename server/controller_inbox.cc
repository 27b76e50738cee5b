#include "server/controller_inbox.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "proto/rpc/clock.h"
#include "server/try_again.h"

namespace lasp::server {
namespace {

// Streams let go in one pass: many at once would only fill the room for one another.
constexpr size_t kMaxResumed = 64;

}  // namespace

absl::Status ControllerInbox::Add(Kind kind, size_t bytes, std::function<void(JobEngine&)> work) {
  bytes = kind == Kind::kAgentMessage ? std::max(bytes, kMinMessageBytes) : 0;
  MutexLock lock(&mutex_);
  if (stopping_) {
    return ShuttingDown();
  }
  if ((kind == Kind::kCommand && commands_ >= limits_.max_commands) ||
      (kind == Kind::kAgentMessage && agent_bytes_ >= 2 * limits_.max_agent_bytes)) {
    return Overloaded();
  }
  commands_ += kind == Kind::kCommand ? 1 : 0;
  agent_messages_ += kind == Kind::kAgentMessage ? 1 : 0;
  agent_bytes_ += bytes;
  inputs_.push_back({kind, bytes, std::move(work)});
  if (inputs_.size() == 1) {
    wake_.Notify();
  }
  return absl::OkStatus();
}

bool ControllerInbox::AwaitRoom(std::function<void()> resume) {
  MutexLock lock(&mutex_);
  if (agent_bytes_ < limits_.max_agent_bytes) {
    return true;
  }
  if (!stopping_) {
    held_.push_back(std::move(resume));
  }
  return false;
}

// Half empty, so that streams are not held and let go with every message.
bool ControllerInbox::MayResume() const {
  return !held_.empty() && agent_bytes_ <= limits_.max_agent_bytes / 2;
}

void ControllerInbox::AddPending(CommitUnit unit) {
  MutexLock lock(&mutex_);
  pending_.push_back(std::move(unit));
}

void ControllerInbox::PendingCommitted() {
  MutexLock lock(&mutex_);
  if (!pending_.empty()) {
    committed_.push_back(std::move(pending_.front()));
    pending_.pop_front();
    wake_.Notify();
  }
}

void ControllerInbox::AddCommitted(CommitUnit unit) {
  MutexLock lock(&mutex_);
  committed_.push_back(std::move(unit));
}

void ControllerInbox::Stop() {
  MutexLock lock(&mutex_);
  stopping_ = true;
  wake_.NotifyAll();
}

ControllerInbox::Batch ControllerInbox::Take(bool decide, size_t max_inputs,
                                             absl::Duration deadline) {
  Batch batch;
  std::vector<std::function<void()>> resumed;
  {
    MutexLock lock(&mutex_);
    const absl::Duration now = SystemClock().Monotonic();
    if ((inputs_.empty() || !decide) && committed_.empty() && !stopping_ && !MayResume() &&
        now < deadline) {
      wake_.WaitWithTimeout(&mutex_, deadline - now);
    }
    batch.stopping = stopping_;
    batch.committed.swap(committed_);
    while (decide && !inputs_.empty() && batch.inputs.size() < max_inputs) {
      Input& input = inputs_.front();
      commands_ -= input.kind == Kind::kCommand ? 1 : 0;
      agent_messages_ -= input.kind == Kind::kAgentMessage ? 1 : 0;
      agent_bytes_ -= input.bytes;
      batch.inputs.push_back(std::move(input.work));
      inputs_.pop_front();
    }
    while (!stopping_ && MayResume() && resumed.size() < kMaxResumed) {
      resumed.push_back(std::move(held_.front()));
      held_.pop_front();
    }
  }
  for (const std::function<void()>& resume : resumed) {
    resume();
  }
  return batch;
}

std::deque<CommitUnit> ControllerInbox::TakeCommitted(absl::Duration patience) {
  MutexLock lock(&mutex_);
  if (committed_.empty() && patience > absl::ZeroDuration()) {
    wake_.WaitWithTimeout(&mutex_, patience);
  }
  return std::exchange(committed_, {});
}

void ControllerInbox::Clear() {
  // They go after the lock: answers are given as they are dropped.
  std::deque<Input> inputs;
  std::deque<CommitUnit> pending;
  std::deque<CommitUnit> committed;
  std::deque<std::function<void()>> held;
  MutexLock lock(&mutex_);
  inputs.swap(inputs_);
  pending.swap(pending_);
  committed.swap(committed_);
  held.swap(held_);
}

size_t ControllerInbox::command_count() const {
  MutexLock lock(&mutex_);
  return commands_;
}

size_t ControllerInbox::agent_message_count() const {
  MutexLock lock(&mutex_);
  return agent_messages_;
}

size_t ControllerInbox::agent_bytes() const {
  MutexLock lock(&mutex_);
  return agent_bytes_;
}

}  // namespace lasp::server
