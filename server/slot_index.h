// The free slots of a cluster, kept in order while they come and go.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace lasp::server {

// Workers, by small numbers, and how many free slots each has. Every call but BestFit and MostFree
// costs the same however many workers there are; these two depend on the slots of the largest.
class SlotIndex {
 public:
  SlotIndex() : by_free_(1) {}

  int total() const { return total_; }

  // 0 where the worker is not known.
  int free(int worker) const {
    const auto index = static_cast<size_t>(worker);
    return index < free_.size() ? free_[index] : 0;
  }

  // A worker without a call has none.
  void Set(int worker, int free) {
    while (free_.size() <= static_cast<size_t>(worker)) {
      position_.push_back(by_free_[0].size());
      by_free_[0].push_back(static_cast<int>(free_.size()));
      free_.push_back(0);
    }
    Take(worker, this->free(worker) - std::max(0, free));
  }

  // Takes `count` slots of a worker; gives them back where negative.
  void Take(int worker, int count) {
    if (count == 0) {
      return;
    }
    const auto index = static_cast<size_t>(worker);
    std::vector<int>& from = by_free_[static_cast<size_t>(free_[index])];
    const size_t hole = position_[index];
    from[hole] = from.back();
    position_[static_cast<size_t>(from[hole])] = hole;
    from.pop_back();
    free_[index] -= count;
    total_ -= count;
    const auto free = static_cast<size_t>(free_[index]);
    if (by_free_.size() <= free) {
      by_free_.resize(free + 1);
    }
    position_[index] = by_free_[free].size();
    by_free_[free].push_back(worker);
  }

  // The fullest worker with at least `count` (> 0) free slots; -1 where there is none.
  int BestFit(int count) const {
    for (auto free = static_cast<size_t>(count); free < by_free_.size(); ++free) {
      if (!by_free_[free].empty()) {
        return by_free_[free].back();
      }
    }
    return -1;
  }

  // The emptiest worker; -1 where no slot is free.
  int MostFree() const {
    for (size_t free = by_free_.size() - 1; free > 0; --free) {
      if (!by_free_[free].empty()) {
        return by_free_[free].back();
      }
    }
    return -1;
  }

 private:
  int total_ = 0;
  std::vector<int> free_;
  // free slots → workers
  std::vector<std::vector<int>> by_free_;
  // worker → where it is in by_free_
  std::vector<size_t> position_;
};

}  // namespace lasp::server
