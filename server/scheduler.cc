#include "server/scheduler.h"

#include <algorithm>
#include <utility>

namespace lasp::server {
namespace {

// The workers by their number of free slots, with a way back.
class FreeSlots {
 public:
  explicit FreeSlots(const std::vector<SchedulerWorker>& workers) {
    int most = 0;
    for (const SchedulerWorker& worker : workers) {
      most = std::max(most, worker.free_slots);
    }
    by_free_.resize(static_cast<size_t>(most) + 1);
    free_.reserve(workers.size());
    position_.reserve(workers.size());
    for (size_t i = 0; i < workers.size(); ++i) {
      const int free = std::max(0, workers[i].free_slots);
      free_.push_back(free);
      total_ += free;
      position_.push_back(by_free_[static_cast<size_t>(free)].size());
      by_free_[static_cast<size_t>(free)].push_back(static_cast<int>(i));
    }
  }

  int total() const { return total_; }

  int free(int worker) const { return free_[static_cast<size_t>(worker)]; }

  // The fullest worker with at least `count` free slots; -1 where there is none.
  int BestFit(int count) const {
    for (auto free = static_cast<size_t>(count); free < by_free_.size(); ++free) {
      if (!by_free_[free].empty()) {
        return by_free_[free].back();
      }
    }
    return -1;
  }

  // The emptiest worker.
  int MostFree() const {
    for (size_t free = by_free_.size() - 1; free > 0; --free) {
      if (!by_free_[free].empty()) {
        return by_free_[free].back();
      }
    }
    return -1;
  }

  // Takes `count` slots of a worker; gives them back where negative.
  void Take(int worker, int count) {
    const auto index = static_cast<size_t>(worker);
    std::vector<int>& from = by_free_[static_cast<size_t>(free_[index])];
    const size_t hole = position_[index];
    from[hole] = from.back();
    position_[static_cast<size_t>(from[hole])] = hole;
    from.pop_back();
    free_[index] -= count;
    total_ -= count;
    std::vector<int>& to = by_free_[static_cast<size_t>(free_[index])];
    position_[index] = to.size();
    to.push_back(worker);
  }

 private:
  int total_ = 0;
  std::vector<int> free_;
  // free slots → workers
  std::vector<std::vector<int>> by_free_;
  // worker → where it is in by_free_
  std::vector<size_t> position_;
};

// Fills workers[first, first + size) with one group.
void SpreadGroup(FreeSlots* slots, std::vector<int>* workers, int first, int size) {
  int placed = 0;
  while (placed < size) {
    const int rest = size - placed;
    int worker = slots->BestFit(rest);
    if (worker < 0) {
      worker = slots->MostFree();
    }
    const int count = std::min(rest, slots->free(worker));
    slots->Take(worker, count);
    std::fill_n(workers->begin() + first + placed, count, worker);
    placed += count;
  }
}

// The worker of every rank, taken from `slots`. The caller has seen that there are enough.
std::vector<int> PlaceRanks(FreeSlots* slots, const SchedulerJob& job) {
  std::vector<int> workers(static_cast<size_t>(job.world_size), -1);
  const int whole = slots->BestFit(job.world_size);
  if (whole >= 0) {
    slots->Take(whole, job.world_size);
    std::fill(workers.begin(), workers.end(), whole);
    return workers;
  }
  const int groups = job.world_size / job.group_size;
  // Groups that fit on one host first: spreading one could break the room of another.
  int group = 0;
  for (; group < groups; ++group) {
    const int worker = slots->BestFit(job.group_size);
    if (worker < 0) {
      break;
    }
    slots->Take(worker, job.group_size);
    std::fill_n(workers.begin() + group * job.group_size, job.group_size, worker);
  }
  for (; group < groups; ++group) {
    SpreadGroup(slots, &workers, group * job.group_size, job.group_size);
  }
  return workers;
}

std::optional<std::vector<int>> Place(FreeSlots* slots, const SchedulerJob& job) {
  // Workers to avoid are emptied for a first try.
  std::vector<std::pair<int, int>> avoided;
  for (const int worker : job.avoid) {
    avoided.emplace_back(worker, slots->free(worker));
    slots->Take(worker, slots->free(worker));
  }
  std::optional<std::vector<int>> placement;
  if (slots->total() >= job.world_size) {
    placement = PlaceRanks(slots, job);
  }
  for (auto entry = avoided.rbegin(); entry != avoided.rend(); ++entry) {
    slots->Take(entry->first, -entry->second);
  }
  if (!placement.has_value() && !avoided.empty() && slots->total() >= job.world_size) {
    placement = PlaceRanks(slots, job);
  }
  return placement;
}

}  // namespace

Schedule MakeSchedule(const std::vector<SchedulerWorker>& workers,
                      const std::vector<SchedulerJob>& jobs, int cluster_slots) {
  FreeSlots slots(workers);
  Schedule schedule;
  for (size_t i = 0; i < jobs.size(); ++i) {
    if (jobs[i].world_size > cluster_slots) {
      continue;
    }
    auto placement = Place(&slots, jobs[i]);
    if (!placement.has_value()) {
      schedule.blocked = i;
      break;
    }
    schedule.placements.push_back({.job = i, .workers = *std::move(placement)});
  }
  return schedule;
}

}  // namespace lasp::server
