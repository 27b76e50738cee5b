#include "server/checkpoint_book.h"

#include <algorithm>
#include <limits>

namespace lasp::server {

using lasp::v1::Checkpoint;

int KeepLast(const lasp::v1::CheckpointRetention& retention) {
  return retention.has_keep_last() ? std::max(1, retention.keep_last()) : 3;
}

std::vector<int> CheckpointRecord::MissingRanks() const {
  std::vector<int> missing;
  for (int rank = 0; rank < checkpoint.shard_count(); ++rank) {
    if (!shards.contains(rank)) {
      missing.push_back(rank);
    }
  }
  return missing;
}

std::optional<CheckpointTask::Kind> CheckpointRecord::NextTask() const {
  if (Settling()) {
    return CheckpointTask::Kind::kCommit;
  }
  if (state() == Checkpoint::STATE_COMMITTED && !checkpoint.has_verify_time()) {
    return CheckpointTask::Kind::kVerify;
  }
  if (state() == Checkpoint::STATE_DELETING ||
      (state() == Checkpoint::STATE_FAILED && !checkpoint.folder().empty())) {
    return CheckpointTask::Kind::kRemove;
  }
  return std::nullopt;
}

CheckpointRecord* CheckpointBook::Newest(int64_t step) {
  const auto after = records_.upper_bound({step, std::numeric_limits<int64_t>::max()});
  return after == records_.begin() || std::prev(after)->first.first != step
             ? nullptr
             : &std::prev(after)->second;
}

const CheckpointRecord* CheckpointBook::Find(int64_t step, int64_t generation) const {
  const auto found = records_.find({step, generation});
  return found == records_.end() ? nullptr : &found->second;
}

CheckpointRecord* CheckpointBook::Find(int64_t step, int64_t generation) {
  const auto found = records_.find({step, generation});
  return found == records_.end() ? nullptr : &found->second;
}

const CheckpointRecord* CheckpointBook::NewestCommitted() const {
  for (auto record = records_.rbegin(); record != records_.rend(); ++record) {
    if (record->second.state() == Checkpoint::STATE_COMMITTED) {
      return &record->second;
    }
  }
  return nullptr;
}

bool CheckpointBook::Settling() const {
  return std::any_of(records_.begin(), records_.end(),
                     [](const auto& record) { return record.second.Settling(); });
}

std::vector<CheckpointBook::Key> CheckpointBook::Collectable(
    const lasp::v1::CheckpointRetention& retention) const {
  const int keep_last = KeepLast(retention);
  std::vector<Key> keys;
  int newer_verified = 0;
  for (auto record = records_.rbegin(); record != records_.rend(); ++record) {
    const Checkpoint& checkpoint = record->second.checkpoint;
    const bool committed = checkpoint.state() == Checkpoint::STATE_COMMITTED;
    if (!committed && checkpoint.state() != Checkpoint::STATE_CORRUPT) {
      continue;
    }
    const bool kept_for_long = committed && retention.keep_every_steps() > 0 &&
                               checkpoint.step() % retention.keep_every_steps() == 0;
    if (newer_verified >= keep_last && !kept_for_long && !record->second.busy) {
      keys.push_back(record->first);
    }
    newer_verified += committed && checkpoint.has_verify_time() ? 1 : 0;
  }
  return keys;
}

std::vector<Checkpoint> CheckpointBook::View() const {
  std::vector<Checkpoint> view;
  view.reserve(records_.size());
  for (auto record = records_.rbegin(); record != records_.rend(); ++record) {
    view.push_back(record->second.checkpoint);
  }
  return view;
}

}  // namespace lasp::server
