#include "worker/agent/report_buffer.h"

#include <algorithm>
#include <utility>

#include "worker/agent/rank_exit.h"

namespace lasp::worker {

using lasp::v1::ConnectRequest;
using lasp::v1::RankStatus;

void ReportBuffer::AddStep(const lasp::v1::Fence& fence, lasp::v1::StepMetrics step) {
  Append(fence, std::move(step));
  ++step_count_;
  if (step_count_ > limits_.max_steps) {
    Thin();
  }
}

void ReportBuffer::Append(const lasp::v1::Fence& fence, lasp::v1::StepMetrics step) {
  // The latest of the rank; one that was sent before keeps its content.
  for (auto open = messages_.rbegin(); open != messages_.rend() && open->sequence() == 0; ++open) {
    if (open->has_shard_written() && SameFence(open->shard_written().fence(), fence)) {
      break;
    }
    if (!open->has_step_reports() || !SameFence(open->step_reports().fence(), fence)) {
      continue;
    }
    if (IsFull(*open)) {
      break;
    }
    *open->mutable_step_reports()->add_steps() = std::move(step);
    if (IsFull(*open)) {
      due_ = messages_.size();
    }
    return;
  }
  lasp::v1::StepReports* const reports = messages_.emplace_back().mutable_step_reports();
  *reports->mutable_fence() = fence;
  *reports->add_steps() = std::move(step);
}

bool ReportBuffer::IsFull(const ConnectRequest& message) const {
  return static_cast<size_t>(message.step_reports().steps_size()) >= limits_.max_steps_a_message;
}

void ReportBuffer::AddShard(lasp::v1::ShardWritten shard) {
  *messages_.emplace_back().mutable_shard_written() = std::move(shard);
  due_ = messages_.size();
}

void ReportBuffer::AddExit(lasp::v1::RankExited exited) {
  *messages_.emplace_back().mutable_rank_exited() = std::move(exited);
  due_ = messages_.size();
}

void ReportBuffer::BeginSession() {
  sent_ = 0;
  due_ = messages_.size();
  unacknowledged_.clear();
  last_message_at_ = -absl::InfiniteDuration();
}

void ReportBuffer::Acknowledge(int64_t sequence) {
  // What waits to go again has an old number, lower than that of anything said on this stream.
  while (sent_ > 0 && messages_.front().sequence() <= sequence) {
    step_count_ -= static_cast<size_t>(messages_.front().step_reports().steps_size());
    messages_.pop_front();
    --sent_;
    --due_;
  }
  while (!unacknowledged_.empty() && unacknowledged_.front() <= sequence) {
    unacknowledged_.pop_front();
  }
}

std::optional<ConnectRequest> ReportBuffer::Next(absl::Duration now, int64_t* next_sequence) {
  if (NextDue() > now) {
    return std::nullopt;
  }
  if (sent_ >= due_) {
    due_ = messages_.size();
  }
  ConnectRequest& message = messages_[sent_++];
  if (message.sequence() == 0) {
    message.set_sequence((*next_sequence)++);
  }
  unacknowledged_.push_back(message.sequence());
  last_message_at_ = now;
  return message;
}

absl::Duration ReportBuffer::NextDue() const {
  if (sent_ >= messages_.size() || unacknowledged_.size() >= limits_.max_unacknowledged_messages) {
    return absl::InfiniteDuration();
  }
  return sent_ < due_ ? last_message_at_ : last_message_at_ + limits_.interval;
}

std::vector<RankStatus> ReportBuffer::EndedRanks() const {
  std::vector<RankStatus> ended;
  for (const ConnectRequest& message : messages_) {
    const lasp::v1::RankExited& exited = message.rank_exited();
    // Told again, when it was told to stop.
    const bool listed = std::any_of(ended.begin(), ended.end(), [&exited](const RankStatus& rank) {
      return SameFence(rank.fence(), exited.fence());
    });
    if (!message.has_rank_exited() || message.sequence() > 0 || exited.slot() < 0 || listed) {
      continue;
    }
    RankStatus& rank = ended.emplace_back();
    *rank.mutable_fence() = exited.fence();
    rank.set_slot(exited.slot());
    // One that made no step may never have been ready: it is not to complete a start.
    rank.set_phase(exited.step() > 0 ? RankStatus::PHASE_STOPPING : RankStatus::PHASE_STARTING);
    rank.set_step(exited.step());
  }
  return ended;
}

void ReportBuffer::Thin() {
  // Called with nothing acknowledged for long; the first step, all shards and all exits stay.
  const size_t older_half = step_count_ / 2;
  std::deque<ConnectRequest> messages = std::exchange(messages_, {});
  const size_t sent = std::exchange(sent_, 0);
  size_t seen = 0;
  bool drop = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    ConnectRequest& message = messages[i];
    lasp::v1::StepReports all;
    if (message.has_step_reports()) {
      all = std::move(*message.mutable_step_reports());
      message.mutable_step_reports()->Clear();
      *message.mutable_step_reports()->mutable_fence() = all.fence();
    }
    for (lasp::v1::StepMetrics& step : *all.mutable_steps()) {
      if (seen++ < older_half && std::exchange(drop, !drop)) {
        --step_count_;
        ++thinned_steps_;
      } else if (message.sequence() == 0) {
        // Not sent yet: what is left of several fits into one.
        Append(all.fence(), std::move(step));
      } else {
        *message.mutable_step_reports()->add_steps() = std::move(step);
      }
    }
    if (!message.has_step_reports() || message.step_reports().steps_size() > 0) {
      messages_.push_back(std::move(message));
      sent_ += i < sent ? 1 : 0;
    }
  }
  due_ = messages_.size();
}

}  // namespace lasp::worker
