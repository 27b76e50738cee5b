#include "worker/agent/log_shipper.h"

#include <algorithm>
#include <utility>

#include "proto/rpc/log.h"

namespace lasp::worker {
namespace {

// What lies in a stream that still works this long after has arrived.
constexpr absl::Duration kArrivalTime = absl::Seconds(30);
// How long the coordinator's answer to a gap may take.
constexpr absl::Duration kGapAnswerTime = absl::Milliseconds(500);

}  // namespace

LogShipper::LogShipper(int64_t bytes_per_second, const Clock* clock)
    : bytes_per_second_(bytes_per_second),
      clock_(clock),
      budget_bytes_(static_cast<double>(bytes_per_second)),
      refilled_at_(clock->Monotonic()) {}

bool LogShipper::SameRank(const lasp::v1::Fence& a, const lasp::v1::Fence& b) {
  return a.rank() == b.rank() && a.generation() == b.generation() && a.uid() == b.uid();
}

void LogShipper::Add(FencedLog log) {
  auto shipped = std::make_shared<Shipped>();
  shipped->fenced = std::move(log);
  shipped->marked_at = clock_->Monotonic();
  MutexLock lock(&mutex_);
  logs_.push_back(std::move(shipped));
}

void LogShipper::BeginSession() {
  const absl::Duration now = clock_->Monotonic();
  MutexLock lock(&mutex_);
  ready_.reset();
  for (const auto& log : logs_) {
    log->position = log->arrived;
    log->marked = log->arrived;
    log->marked_at = now;
  }
}

void LogShipper::SetPosition(const lasp::v1::Fence& fence, int64_t offset) {
  const absl::Duration now = clock_->Monotonic();
  MutexLock lock(&mutex_);
  if (ready_.has_value() && SameRank(ready_->fence(), fence)) {
    ready_.reset();
  }
  for (const auto& log : logs_) {
    if (SameRank(log->fenced.fence, fence)) {
      log->position = offset;
      log->arrived = offset;
      log->marked = offset;
      log->marked_at = now;
      log->hold_until = absl::ZeroDuration();
    }
  }
}

void LogShipper::Refill(absl::Duration now) {
  const double limit = static_cast<double>(bytes_per_second_);
  budget_bytes_ =
      std::min(limit, budget_bytes_ + absl::ToDoubleSeconds(now - refilled_at_) * limit);
  refilled_at_ = now;
}

std::vector<std::shared_ptr<RankLog>> LogShipper::NoteArrivals(absl::Duration now) {
  std::vector<std::shared_ptr<RankLog>> shipped;
  const auto complete = [now, &shipped](const std::shared_ptr<Shipped>& log) {
    if (now - log->marked_at < kArrivalTime) {
      return false;
    }
    log->arrived = log->marked;
    log->marked = log->position;
    log->marked_at = now;
    // Asked before the end is read, since nothing is appended afterwards.
    if (!log->fenced.log->closed() || log->arrived < log->fenced.log->end()) {
      return false;
    }
    shipped.push_back(log->fenced.log);
    return true;
  };
  logs_.erase(std::remove_if(logs_.begin(), logs_.end(), complete), logs_.end());
  return shipped;
}

void LogShipper::Drop(const std::shared_ptr<Shipped>& log) {
  const int64_t bytes = log->fenced.log->end() - log->position;
  LASP_LOG(kWarning,
           "a rank's log was removed before the coordinator had it: --retain_logs and "
           "--retain_log_bytes say what is kept",
           {{"log", log->fenced.log->folder()}, {"bytes", bytes}});
  dropped_bytes_ += bytes;
  std::erase(logs_, log);
}

std::optional<lasp::v1::LogChunk> LogShipper::Next() {
  Fill();
  return Take();
}

std::optional<lasp::v1::LogChunk> LogShipper::Take() {
  MutexLock lock(&mutex_);
  std::optional<lasp::v1::LogChunk> chunk = std::exchange(ready_, std::nullopt);
  sent_bytes_ += chunk.has_value() ? static_cast<int64_t>(chunk->data().size()) : 0;
  return chunk;
}

bool LogShipper::Fill() {
  const absl::Duration now = clock_->Monotonic();
  std::vector<std::shared_ptr<RankLog>> shipped;
  std::vector<std::pair<std::shared_ptr<Shipped>, int64_t>> candidates;
  {
    MutexLock lock(&mutex_);
    if (ready_.has_value()) {
      return true;
    }
    Refill(now);
    shipped = NoteArrivals(now);
    for (size_t i = 0; i < logs_.size() && budget_bytes_ > 0; ++i) {
      const auto& log = logs_[(turn_ + i) % logs_.size()];
      if (log->hold_until <= now && log->position < log->fenced.log->end()) {
        candidates.emplace_back(log, log->position);
      }
    }
  }
  // The disk is written and read without the lock.
  for (const std::shared_ptr<RankLog>& log : shipped) {
    LogFolder::MarkShipped(*log);
  }
  for (const auto& [log, position] : candidates) {
    absl::StatusOr<RankLog::Piece> piece = log->fenced.log->Read(position, kMaxLogChunkBytes);
    const bool removed = absl::IsAborted(piece.status()) && log->fenced.log->removed();
    MutexLock lock(&mutex_);
    if (log->position != position) {
      continue;  // moved by SetPosition or BeginSession meanwhile
    }
    if (removed) {
      Drop(log);
      continue;
    }
    if (!piece.ok()) {
      if (!absl::IsAborted(piece.status())) {
        LASP_LOG(kError, "a rank's log cannot be read", {{"error", piece.status().message()}});
        log->position = log->fenced.log->end();
      }
      continue;
    }
    if (piece->offset > position) {
      dropped_bytes_ += piece->offset - position;
      log->hold_until = now + kGapAnswerTime;
    }
    log->position = piece->offset + static_cast<int64_t>(piece->data.size());
    if (piece->data.empty()) {
      continue;
    }
    const auto place = std::find(logs_.begin(), logs_.end(), log);
    turn_ = static_cast<size_t>(place - logs_.begin()) + 1;
    budget_bytes_ -= static_cast<double>(piece->data.size());
    lasp::v1::LogChunk& chunk = ready_.emplace();
    *chunk.mutable_fence() = log->fenced.fence;
    chunk.set_offset(piece->offset);
    chunk.set_data(std::move(piece->data));
    return true;
  }
  return false;
}

bool LogShipper::AllSent() const {
  MutexLock lock(&mutex_);
  return !ready_.has_value() &&
         std::all_of(logs_.begin(), logs_.end(), [](const std::shared_ptr<Shipped>& log) {
           return log->position >= log->fenced.log->end();
         });
}

int64_t LogShipper::sent_bytes() const {
  MutexLock lock(&mutex_);
  return sent_bytes_;
}

int64_t LogShipper::dropped_bytes() const {
  MutexLock lock(&mutex_);
  return dropped_bytes_;
}

}  // namespace lasp::worker
