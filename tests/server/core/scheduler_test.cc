#include "server/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <random>
#include <set>

namespace lasp::server {
namespace {

using ::testing::ElementsAre;

SlotIndex Workers(const std::vector<int>& free) {
  SlotIndex slots;
  for (size_t i = 0; i < free.size(); ++i) {
    slots.Set(static_cast<int>(i), free[i]);
  }
  return slots;
}

// Of a cluster that nothing else uses.
Schedule MakeSchedule(SlotIndex slots, const std::vector<SchedulerJob>& jobs, int cluster_slots) {
  return server::MakeSchedule(&slots, jobs, cluster_slots);
}

SchedulerJob GangOf(int sp, int dp) {
  return {.world_size = sp * dp, .group_size = sp, .avoid = {}};
}

TEST(SchedulerTest, AJobThatFitsOnOneWorkerGoesOnTheFullestOne) {
  const Schedule schedule = MakeSchedule(Workers({4, 2, 3}), {GangOf(2, 1)}, 9);
  ASSERT_EQ(schedule.placements.size(), 1);
  EXPECT_THAT(schedule.placements[0].workers, ElementsAre(1, 1));
}

TEST(SchedulerTest, GroupsStayWholeWhereTheyFit) {
  const Schedule schedule = MakeSchedule(Workers({3, 2, 1}), {GangOf(2, 2)}, 6);
  ASSERT_EQ(schedule.placements.size(), 1);
  EXPECT_THAT(schedule.placements[0].workers, ElementsAre(1, 1, 0, 0));
}

TEST(SchedulerTest, AGroupNoWorkerHasRoomForIsSpreadOverAsFewAsPossible) {
  const Schedule schedule = MakeSchedule(Workers({3, 2, 1}), {GangOf(5, 1)}, 6);
  ASSERT_EQ(schedule.placements.size(), 1);
  EXPECT_THAT(schedule.placements[0].workers, ElementsAre(0, 0, 0, 1, 1));
}

TEST(SchedulerTest, TheHeadHoldsBackTheOthers) {
  const Schedule schedule =
      MakeSchedule(Workers({2, 1}), {GangOf(1, 1), GangOf(3, 1), GangOf(1, 1)}, 6);
  ASSERT_EQ(schedule.placements.size(), 1);
  EXPECT_EQ(schedule.placements[0].job, 0);
  EXPECT_EQ(schedule.blocked, 1);
}

TEST(SchedulerTest, AJobLargerThanTheClusterDoesNot) {
  const Schedule schedule = MakeSchedule(Workers({2, 1}), {GangOf(7, 1), GangOf(1, 1)}, 6);
  ASSERT_EQ(schedule.placements.size(), 1);
  EXPECT_EQ(schedule.placements[0].job, 1);
  EXPECT_FALSE(schedule.blocked.has_value());
}

TEST(SchedulerTest, AvoidedWorkersAreUsedOnlyWhereNothingElseFits) {
  SchedulerJob job = GangOf(1, 1);
  job.avoid = {0};
  EXPECT_THAT(MakeSchedule(Workers({1, 4}), {job}, 5).placements[0].workers, ElementsAre(1));
  EXPECT_THAT(MakeSchedule(Workers({1, 0}), {job}, 5).placements[0].workers, ElementsAre(0));
}

TEST(SchedulerTest, NoWorkers) {
  const Schedule schedule = MakeSchedule({}, {GangOf(1, 1)}, 4);
  EXPECT_TRUE(schedule.placements.empty());
  EXPECT_EQ(schedule.blocked, 0);
}

// Random clusters and queues: what holds for every schedule.
TEST(SchedulerTest, Properties) {
  std::mt19937 random(7);
  const auto draw = [&random](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  for (int round = 0; round < 3'000; ++round) {
    std::vector<int> free;
    int total = 0;
    for (int i = draw(0, 12); i > 0; --i) {
      free.push_back(draw(0, 8));
      total += free.back();
    }
    const int cluster = total + draw(0, 10);
    std::vector<SchedulerJob> jobs;
    for (int i = draw(0, 10); i > 0; --i) {
      jobs.push_back(GangOf(draw(1, 6), draw(1, 4)));
      for (int worker = 0; worker < static_cast<int>(free.size()); ++worker) {
        if (draw(0, 9) == 0) {
          jobs.back().avoid.push_back(worker);
        }
      }
    }
    const Schedule schedule = MakeSchedule(Workers(free), jobs, cluster);
    std::vector<int> left = free;
    size_t previous = 0;
    std::set<size_t> started;
    for (const Placement& placement : schedule.placements) {
      const SchedulerJob& job = jobs[placement.job];
      ASSERT_TRUE(started.empty() || placement.job > previous);
      previous = placement.job;
      started.insert(placement.job);
      // All ranks, each on a worker with room.
      ASSERT_EQ(placement.workers.size(), static_cast<size_t>(job.world_size));
      const std::vector<int> before = left;
      for (const int worker : placement.workers) {
        ASSERT_GE(worker, 0);
        ASSERT_LT(worker, static_cast<int>(left.size()));
        ASSERT_GT(left[static_cast<size_t>(worker)]--, 0) << "a slot used twice";
      }
      // As many groups whole as there was room for.
      int whole = 0;
      int possible = 0;
      for (int group = 0; group < job.world_size / job.group_size; ++group) {
        const auto first = placement.workers.begin() + ptrdiff_t{group} * job.group_size;
        whole += std::all_of(first, first + job.group_size,
                             [first](int worker) { return worker == *first; })
                     ? 1
                     : 0;
      }
      for (const int slots : before) {
        possible += slots / job.group_size;
      }
      if (job.avoid.empty()) {
        ASSERT_GE(whole, std::min(possible, job.world_size / job.group_size));
      }
    }
    // First in, first out: whatever did not start is too large, behind the blocked one, or blocked.
    const int room = [&left] {
      int sum = 0;
      for (const int slots : left) {
        sum += slots;
      }
      return sum;
    }();
    for (size_t i = 0; i < jobs.size(); ++i) {
      if (started.contains(i) || jobs[i].world_size > cluster) {
        ASSERT_FALSE(started.contains(i) && schedule.blocked.has_value() && i >= *schedule.blocked);
        continue;
      }
      ASSERT_TRUE(schedule.blocked.has_value());
      ASSERT_GE(i, *schedule.blocked);
      if (i == *schedule.blocked) {
        ASSERT_GT(jobs[i].world_size, room);
      }
    }
  }
}

TEST(SchedulerTest, TenThousandWorkersTakeMilliseconds) {
  std::vector<int> free(10'000, 8);
  std::vector<SchedulerJob> jobs(256, GangOf(8, 16));
  const auto start = std::chrono::steady_clock::now();
  const Schedule schedule = MakeSchedule(Workers(free), jobs, 80'000);
  const auto took = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(schedule.placements.size(), 256);
  // It takes about 2 ms; the bound only catches what is quadratic.
  EXPECT_LT(took, std::chrono::milliseconds(500));
}

}  // namespace
}  // namespace lasp::server
