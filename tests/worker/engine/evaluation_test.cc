// Evaluations on held-out data while a job trains.
#include <gtest/gtest.h>

#include <atomic>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/local_training.h"
#include "tests/worker/engine/small_spec.h"
#include "worker/engine/progress_clock.h"

namespace lasp::worker {
namespace {

class EvaluationTest : public ::testing::Test {
 protected:
  EvaluationTest() {
    folder_.Write("corpus.txt", MakeText(200'000, 5));
    folder_.Write("held_out.txt", MakeText(5'000, 6));
  }

  // Ten steps with two evaluations.
  LocalTrainingOptions Options(int sp_size) {
    LocalTrainingOptions options;
    options.spec = SmallSpec("corpus.txt");
    options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
    options.spec.mutable_parallelism()->mutable_data_parallel()->set_size(1);
    options.spec.mutable_data()->add_eval_paths("held_out.txt");
    options.spec.set_eval_interval_steps(5);
    options.spec.set_max_steps(10);
    options.path_roots = {folder_.path()};
    return options;
  }

  ::lasp::testing::TempDirectory folder_;
};

// How often it has been looked at.
class CountingClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::UnixEpoch(); }

  absl::Duration Monotonic() const override {
    ++looks;
    return absl::ZeroDuration();
  }

  mutable std::atomic<int64_t> looks{0};
};

TEST_F(EvaluationTest, IsAlikeForEveryShape) {
  std::vector<double> losses;
  for (const int sp_size : {1, 3}) {
    const auto records = TrainLocally(Options(sp_size));
    for (const LocalTrainingRecord& record : records) {
      LASP_ASSERT_OK(record.status);
    }
    ASSERT_EQ(records[0].steps.size(), 10u);
    for (const auto& step : records[0].steps) {
      EXPECT_EQ(step.metrics().has_eval_loss(), step.step() % 5 == 0);
    }
    losses.push_back(records[0].steps[9].metrics().eval_loss());
    EXPECT_LT(losses.back(), records[0].steps[4].metrics().eval_loss());
  }
  EXPECT_NEAR(losses[1] / losses[0], 1, 1e-5);
}

// A lone rank's batches end in no collective operation, and it must not seem to hang.
TEST_F(EvaluationTest, EachBatchIsProgress) {
  constexpr int kBatches = 3;
  CountingClock clock;
  const CollectiveJournal nothing;
  ProgressClock progress(&nothing, /*exchanges=*/false, &clock);
  LocalTrainingOptions options = Options(1);
  options.spec.set_eval_batches(kBatches);
  options.progress = &progress;
  std::vector<int64_t> looks;
  int64_t before = 0;
  options.on_phase = [&](int /*rank*/, lasp::v1::RankStatus::Phase phase, DrainRequest& /*drain*/) {
    if (phase == lasp::v1::RankStatus::PHASE_EVALUATING) {
      before = clock.looks;
    } else if (before > 0) {
      looks.push_back(clock.looks - std::exchange(before, 0));
    }
  };
  const auto records = TrainLocally(options);
  LASP_ASSERT_OK(records[0].status);
  EXPECT_EQ(looks, std::vector<int64_t>(2, kBatches));
}

}  // namespace
}  // namespace lasp::worker
