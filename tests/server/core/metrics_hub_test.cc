#include "server/metrics_hub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

// The steps of one job, as the tables keep them; counts what is asked.
class StepTable final : public JobStore {
 public:
  void Put(int64_t generation, int64_t first, int64_t last) {
    for (int64_t step = first; step <= last; ++step) {
      generations_[step] = generation;
    }
  }

  void Thin(int64_t step) { generations_.erase(step); }

  // Since the last call: queries, and rows looked at for them.
  std::pair<int, int> TakeCost() { return {std::exchange(queries_, 0), std::exchange(rows_, 0)}; }

  absl::StatusOr<std::vector<lasp::v1::StepMetrics>> ReadGenerationSteps(int64_t /*job_id*/,
                                                                         int64_t generation,
                                                                         int64_t after_step,
                                                                         int limit) const override {
    ++queries_;
    std::vector<lasp::v1::StepMetrics> steps;
    for (auto row = generations_.upper_bound(after_step);
         row != generations_.end() && static_cast<int>(steps.size()) < limit; ++row) {
      ++rows_;
      if (row->second == generation) {
        lasp::v1::StepMetrics& step = steps.emplace_back();
        step.set_step(row->first);
        step.set_generation(generation);
      }
    }
    return steps;
  }

  absl::StatusOr<AuditPage> ReadAudit(const AuditQuery& /*query*/, int /*limit*/) const override {
    return AuditPage{};
  }

  absl::StatusOr<int64_t> NextGeneration(int64_t /*job_id*/, int64_t generation) const override {
    ++queries_;
    int64_t next = 0;
    for (const auto& [step, of] : generations_) {
      ++rows_;
      if (of > generation && (next == 0 || of < next)) {
        next = of;
      }
    }
    return next;
  }

  // What following steps has no use for.
  const std::string& uuid() const override { return uuid_; }

  absl::StatusOr<StoreContents> Load() override { return StoreContents(); }

  void Commit(std::vector<Mutation> /*mutations*/, std::function<void()> committed) override {
    committed();
  }

  size_t pending() const override { return 0; }

  absl::Status health() const override { return absl::OkStatus(); }

  absl::StatusOr<std::vector<lasp::v1::Transition>> Transitions(int64_t /*job_id*/,
                                                                int /*limit*/) const override {
    return std::vector<lasp::v1::Transition>();
  }

  absl::StatusOr<std::vector<StoredTransition>> TransitionsBefore(int64_t /*job_id*/,
                                                                  int64_t /*before*/,
                                                                  int /*limit*/) const override {
    return std::vector<StoredTransition>();
  }

  absl::StatusOr<std::vector<StoredTransition>> LatestTransitions(int /*limit*/) const override {
    return std::vector<StoredTransition>();
  }

  absl::StatusOr<int64_t> CountSteps(int64_t /*job_id*/, int64_t /*from_step*/,
                                     int64_t /*to_step*/) const override {
    return 0;
  }

  absl::StatusOr<std::vector<lasp::v1::StepMetrics>> ReadSteps(int64_t /*job_id*/,
                                                               int64_t /*from_step*/,
                                                               int64_t /*to_step*/,
                                                               int64_t /*stride*/) const override {
    return std::vector<lasp::v1::StepMetrics>();
  }

 private:
  const std::string uuid_ = "uuid";
  // By step, as a newer generation's row replaces an older one's.
  std::map<int64_t, int64_t> generations_;
  mutable int queries_ = 0;
  mutable int rows_ = 0;
};

class MetricsHubTest : public ::testing::Test {
 protected:
  static constexpr int64_t kJob = 7;

  void Report(int64_t generation, int64_t first, int64_t last) {
    store_.Put(generation, first, last);
    hub_.Notify(kJob, {generation, last});
  }

  std::unique_ptr<MetricsHub::Subscription> Follow(StepPosition after = {}) {
    return hub_.Subscribe(kJob, after, [] {});
  }

  // Everything there is, as (generation, step).
  static std::vector<std::pair<int64_t, int64_t>> Drain(MetricsHub::Subscription* follower,
                                                        int limit = 100, bool thorough = false) {
    std::vector<std::pair<int64_t, int64_t>> positions;
    while (true) {
      const auto steps = follower->Next(limit, thorough);
      EXPECT_TRUE(steps.ok()) << steps.status();
      if (!steps.ok() || steps->empty()) {
        return positions;
      }
      for (const auto& step : *steps) {
        positions.emplace_back(step.generation(), step.step());
      }
    }
  }

  StepTable store_;
  MetricsHub hub_{&store_};
};

TEST_F(MetricsHubTest, AnIdleFollowerCostsNothing) {
  Report(1, 1, 10'000);
  const auto follower = Follow();
  EXPECT_EQ(Drain(follower.get(), 1'000).size(), 10'000U);
  store_.TakeCost();
  for (int wake = 0; wake < 100; ++wake) {
    EXPECT_THAT(Drain(follower.get()), IsEmpty());
  }
  EXPECT_THAT(store_.TakeCost(), Pair(0, 0));
}

TEST_F(MetricsHubTest, ANewStepCostsOneQueryOfOneRow) {
  Report(1, 1, 10'000);
  Report(2, 1, 5);
  const auto follower = Follow();
  Drain(follower.get(), 1'000);
  store_.TakeCost();
  Report(2, 6, 6);
  EXPECT_THAT(Drain(follower.get()), ElementsAre(Pair(2, 6)));
  EXPECT_THAT(store_.TakeCost(), Pair(1, 1)) << "the older generation's 9,994 rows lie behind it";
}

TEST_F(MetricsHubTest, ARestartGoesOnWithTheNewGeneration) {
  const auto follower = Follow();
  Report(1, 1, 3);
  EXPECT_THAT(Drain(follower.get()), ElementsAre(Pair(1, 1), Pair(1, 2), Pair(1, 3)));
  Report(1, 4, 5);
  Report(2, 1, 2);
  EXPECT_THAT(Drain(follower.get(), 1),
              ElementsAre(Pair(1, 4), Pair(1, 5), Pair(2, 1), Pair(2, 2)));
  Report(3, 2, 3);
  EXPECT_THAT(Drain(follower.get()), ElementsAre(Pair(3, 2), Pair(3, 3)));
}

TEST_F(MetricsHubTest, WhoComesBackAfterARestartMissesNothing) {
  Report(1, 1, 3);
  Report(2, 1, 8);
  // Had seen step 3 of generation 1, of which nothing is left.
  EXPECT_EQ(Drain(Follow({1, 3}).get()).size(), 8U);
  EXPECT_THAT(Drain(Follow({2, 6}).get()), ElementsAre(Pair(2, 7), Pair(2, 8)));
  EXPECT_THAT(Drain(Follow({0, 7}).get()), ElementsAre(Pair(2, 8)));
}

TEST_F(MetricsHubTest, AThoroughLookFindsWhatNobodyToldOf) {
  const auto follower = Follow();
  EXPECT_THAT(Drain(follower.get()), IsEmpty());
  store_.Put(1, 1, 2);
  EXPECT_THAT(Drain(follower.get()), IsEmpty());
  EXPECT_THAT(Drain(follower.get(), 100, /*thorough=*/true), ElementsAre(Pair(1, 1), Pair(1, 2)));
}

TEST_F(MetricsHubTest, AStepThatWasThinnedOutIsNotLookedForAgain) {
  const auto follower = Follow();
  Report(1, 1, 4);
  Drain(follower.get());
  store_.Put(1, 5, 5);
  store_.Thin(5);
  hub_.Notify(kJob, {1, 5});
  EXPECT_THAT(Drain(follower.get()), IsEmpty());
  store_.TakeCost();
  EXPECT_THAT(Drain(follower.get()), IsEmpty());
  EXPECT_THAT(store_.TakeCost(), Pair(0, 0));
}

}  // namespace
}  // namespace lasp::server
