#include "worker/parallel/collective_log.h"

#include "absl/strings/string_view.h"

namespace lasp::worker {

int CollectiveLog::InWorld(int peer) const {
  return peer < 0 || peer >= static_cast<int>(members_.size())
             ? kAllPeers
             : members_[static_cast<size_t>(peer)];
}

uint32_t CollectiveLog::Issue(const char* operation, int peer, int64_t bytes) {
  const absl::Duration now = clock_.Monotonic();
  MutexLock lock(&mutex_);
  // 0 says none.
  issued_ = issued_ + 1 == 0 ? 1 : issued_ + 1;
  CollectiveRecord& record = records_.emplace_back();
  record.number = issued_;
  record.operation = operation;
  record.peer = InWorld(peer);
  record.bytes = bytes;
  record.issued = now;
  if (records_.size() > kKept) {
    records_.pop_front();
  }
  return issued_;
}

CollectiveRecord* CollectiveLog::Find(uint32_t number) const {
  if (records_.empty()) {
    return nullptr;
  }
  const uint32_t back = records_.back().number - number;
  return back < records_.size() ? &records_[records_.size() - 1 - back] : nullptr;
}

void CollectiveLog::Begin(uint32_t number) {
  const absl::Duration now = clock_.Monotonic();
  MutexLock lock(&mutex_);
  begun_ = number;
  waits_for_ = kAllPeers;
  if (CollectiveRecord* const record = Find(number); record != nullptr) {
    record->begun = now;
  }
}

void CollectiveLog::End(uint32_t number) {
  const absl::Duration now = clock_.Monotonic();
  MutexLock lock(&mutex_);
  ended_ = number;
  if (CollectiveRecord* const record = Find(number); record != nullptr) {
    NoteEnd(record, now);
  }
}

void CollectiveLog::NoteEnd(CollectiveRecord* record, absl::Duration now) const {
  record->ended = now;
  if (record->operation == absl::string_view(kSend)) {
    ++traffic_[record->peer].sent;
  } else if (record->operation == absl::string_view(kReceive)) {
    ++traffic_[record->peer].received;
  }
}

void CollectiveLog::EnterWait() {
  MutexLock lock(&mutex_);
  ++waits_;
}

void CollectiveLog::LeaveWait() {
  MutexLock lock(&mutex_);
  --waits_;
}

void CollectiveLog::WaitFor(int peer) {
  MutexLock lock(&mutex_);
  waits_for_ = InWorld(peer);
}

void CollectiveLog::Follow(Progress progress) {
  MutexLock lock(&mutex_);
  progress_ = std::move(progress);
}

void CollectiveLog::Ask() const {
  if (progress_ == nullptr) {
    return;
  }
  const absl::Duration now = clock_.Monotonic();
  const auto [begun, ended] = progress_();
  for (CollectiveRecord& record : records_) {
    // Of what has come about since the last look the time of this look.
    if (record.begun < record.issued && static_cast<int32_t>(begun - record.number) >= 0) {
      record.begun = now;
    }
    if (record.ended < record.issued && static_cast<int32_t>(ended - record.number) >= 0) {
      NoteEnd(&record, now);
    }
  }
  begun_ = begun;
  ended_ = ended;
}

GroupPosition CollectiveLog::position() const {
  MutexLock lock(&mutex_);
  Ask();
  GroupPosition position{.group = group_,
                         .issued = issued_,
                         .begun = begun_,
                         .ended = ended_,
                         .operation = {},
                         .peer = kAllPeers,
                         .awaited = waits_ > 0 || progress_ != nullptr,
                         .traffic = traffic_};
  const CollectiveRecord* const record = begun_ == ended_ ? nullptr : Find(begun_);
  if (record != nullptr) {
    position.operation = record->operation;
    position.peer = waits_for_ != kAllPeers ? waits_for_ : record->peer;
  }
  return position;
}

std::vector<CollectiveRecord> CollectiveLog::Last() const {
  MutexLock lock(&mutex_);
  Ask();
  return {records_.begin(), records_.end()};
}

CollectiveLog* CollectiveJournal::Add(std::string group, std::vector<int> members) {
  MutexLock lock(&mutex_);
  return &logs_.emplace_back(std::move(group), std::move(members), &clock_);
}

std::vector<const CollectiveLog*> CollectiveJournal::logs() const {
  MutexLock lock(&mutex_);
  std::vector<const CollectiveLog*> logs;
  logs.reserve(logs_.size());
  for (const CollectiveLog& log : logs_) {
    logs.push_back(&log);
  }
  return logs;
}

}  // namespace lasp::worker
