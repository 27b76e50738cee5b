#include "server/scheduler.h"

#include <algorithm>
#include <utility>

namespace lasp::server {
namespace {

// Fills workers[first, first + size) with one group.
void SpreadGroup(SlotIndex* slots, std::vector<int>* workers, int first, int size) {
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
std::vector<int> PlaceRanks(SlotIndex* slots, const SchedulerJob& job) {
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
    std::fill_n(workers.begin() + ptrdiff_t{group} * job.group_size, job.group_size, worker);
  }
  for (; group < groups; ++group) {
    SpreadGroup(slots, &workers, group * job.group_size, job.group_size);
  }
  return workers;
}

std::optional<std::vector<int>> Place(SlotIndex* slots, const SchedulerJob& job) {
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

Schedule MakeSchedule(SlotIndex* slots, const std::vector<SchedulerJob>& jobs, int cluster_slots) {
  Schedule schedule;
  for (size_t i = 0; i < jobs.size(); ++i) {
    if (jobs[i].world_size > cluster_slots) {
      continue;
    }
    auto placement = Place(slots, jobs[i]);
    if (!placement.has_value()) {
      schedule.blocked = i;
      break;
    }
    schedule.placements.push_back({.job = i, .workers = *std::move(placement)});
  }
  return schedule;
}

}  // namespace lasp::server
