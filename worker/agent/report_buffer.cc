#include "worker/agent/report_buffer.h"

#include <algorithm>
#include <utility>

namespace lasp::worker {

void ReportBuffer::AddStep(std::shared_ptr<const lasp::v1::Fence> fence,
                           lasp::v1::StepMetrics step) {
  entries_.push_back({.report = Step{std::move(fence), std::move(step)}});
  ++step_count_;
  if (step_count_ > limits_.max_steps) {
    Thin();
  }
}

void ReportBuffer::AddExit(lasp::v1::RankExited exited) {
  entries_.push_back({.report = std::move(exited)});
}

void ReportBuffer::BeginSession() {
  sent_ = 0;
  unacknowledged_.clear();
  last_message_at_ = -absl::InfiniteDuration();
}

void ReportBuffer::Acknowledge(int64_t sequence) {
  // What waits to go again has an old number, lower than that of anything said on this stream.
  while (sent_ > 0 && entries_.front().sequence <= sequence) {
    step_count_ -= std::holds_alternative<Step>(entries_.front().report) ? 1 : 0;
    entries_.pop_front();
    --sent_;
  }
  while (!unacknowledged_.empty() && unacknowledged_.front() <= sequence) {
    unacknowledged_.pop_front();
  }
}

size_t ReportBuffer::MessageEnd(size_t begin) const {
  const Entry& first = entries_[begin];
  const Step* const first_step = std::get_if<Step>(&first.report);
  if (first_step == nullptr) {
    return begin + 1;
  }
  size_t end = begin + 1;
  while (end < entries_.size() && end - begin < limits_.max_steps_a_message) {
    const Step* const step = std::get_if<Step>(&entries_[end].report);
    // One message, one rank; and a message sent before keeps its content.
    if (step == nullptr || step->fence != first_step->fence ||
        entries_[end].sequence != first.sequence) {
      break;
    }
    ++end;
  }
  return end;
}

bool ReportBuffer::IsDue(size_t begin, size_t end, absl::Duration now) const {
  return std::holds_alternative<lasp::v1::RankExited>(entries_[begin].report) ||
         // Something else follows, or the message is full, or it goes again.
         end < entries_.size() || end - begin >= limits_.max_steps_a_message ||
         entries_[begin].sequence != 0 || now - last_message_at_ >= limits_.interval;
}

std::optional<lasp::v1::ConnectRequest> ReportBuffer::Next(absl::Duration now,
                                                           int64_t* next_sequence) {
  if (sent_ >= entries_.size() || unacknowledged_.size() >= limits_.max_unacknowledged_messages) {
    return std::nullopt;
  }
  const size_t begin = sent_;
  const size_t end = MessageEnd(begin);
  if (!IsDue(begin, end, now)) {
    return std::nullopt;
  }
  if (entries_[begin].sequence == 0) {
    const int64_t sequence = (*next_sequence)++;
    for (size_t i = begin; i < end; ++i) {
      entries_[i].sequence = sequence;
    }
  }
  sent_ = end;
  unacknowledged_.push_back(entries_[begin].sequence);
  last_message_at_ = now;
  return Compose(begin, end);
}

absl::Duration ReportBuffer::NextDue() const {
  if (sent_ >= entries_.size() || unacknowledged_.size() >= limits_.max_unacknowledged_messages) {
    return absl::InfiniteDuration();
  }
  return last_message_at_ + limits_.interval;
}

lasp::v1::ConnectRequest ReportBuffer::Compose(size_t begin, size_t end) const {
  lasp::v1::ConnectRequest request;
  request.set_sequence(entries_[begin].sequence);
  if (const auto* exited = std::get_if<lasp::v1::RankExited>(&entries_[begin].report)) {
    *request.mutable_rank_exited() = *exited;
    return request;
  }
  lasp::v1::StepReports* const reports = request.mutable_step_reports();
  *reports->mutable_fence() = *std::get<Step>(entries_[begin].report).fence;
  for (size_t i = begin; i < end; ++i) {
    *reports->add_steps() = std::get<Step>(entries_[i].report).metrics;
  }
  return request;
}

void ReportBuffer::Thin() {
  // Called with nothing acknowledged for long; the first step and all exits stay.
  const size_t older_half = entries_.size() / 2;
  std::deque<Entry> kept;
  size_t sent = 0;
  bool drop = false;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const bool is_step = std::holds_alternative<Step>(entries_[i].report);
    if (is_step && i < older_half && std::exchange(drop, !drop)) {
      --step_count_;
      ++thinned_steps_;
      continue;
    }
    sent += i < sent_ ? 1 : 0;
    kept.push_back(std::move(entries_[i]));
  }
  entries_ = std::move(kept);
  sent_ = sent;
}

}  // namespace lasp::worker
