// Training as a whole: the same run for every shape of ranks, bit for bit the same twice, and what
// happens to it on the way.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "proto/rpc/error_details.h"
#include "proto/rpc/rank_exit_code.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/dump_reader.h"
#include "tests/worker/engine/local_training.h"
#include "tests/worker/parallel/forwarding_communicator.h"
#include "tests/worker/parallel/sequence_parallel_methods.h"
#include "worker/engine/exit_code.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::lasp::testing::TempDirectory;
using ::testing::HasSubstr;

class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() { folder_.Write("corpus.txt", MakeText(200'000, 5)); }

  lasp::v1::TrainingSpec Spec(int sp_size, int dp_size) {
    lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
    spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
    spec.mutable_parallelism()->mutable_data_parallel()->set_size(dp_size);
    return spec;
  }

  LocalTrainingOptions Options(const lasp::v1::TrainingSpec& spec) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    return options;
  }

  std::vector<LocalTrainingRecord> Train(const LocalTrainingOptions& options) {
    std::vector<LocalTrainingRecord> records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
    }
    return records;
  }

  TempDirectory folder_;
};

TEST_F(TrainerTest, TheShapeOfTheRanksChangesNothing) {
  LocalTrainingOptions options = Options(Spec(1, 1));
  options.spec.mutable_model()->set_lrpe_theta(lasp::v1::ModelSpec::LRPE_THETA_LEARNED);
  options.dump_directory = folder_.Join("dump-1-1");
  const auto expected = Train(options);
  const auto expected_arrays = ReadDump(options.dump_directory + "/rank-0");
  ASSERT_EQ(Losses(expected).size(), 20u);
  EXPECT_LT(Losses(expected).back(), Losses(expected).front() - 0.5);

  const std::vector<std::pair<int, int>> shapes = {{2, 1}, {3, 1}, {4, 1}, {2, 2}, {1, 4}};
  for (const auto& [sp_size, dp_size] : shapes) {
    SCOPED_TRACE(absl::StrCat("SP ", sp_size, " DP ", dp_size));
    options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
    options.spec.mutable_parallelism()->mutable_data_parallel()->set_size(dp_size);
    options.dump_directory = folder_.Join(absl::StrCat("dump-", sp_size, "-", dp_size));
    const auto records = Train(options);
    for (size_t step = 0; step < 20; ++step) {
      EXPECT_NEAR(Losses(records)[step] / Losses(expected)[step], 1, 1e-5) << step + 1;
      EXPECT_NEAR(GradientNorms(records)[step] / GradientNorms(expected)[step], 1, 1e-4);
    }
    for (size_t rank = 0; rank < records.size(); ++rank) {
      const auto arrays = ReadDump(absl::StrCat(options.dump_directory, "/rank-", rank));
      for (const auto& [name, want] : expected_arrays) {
        if (name.rfind("gradient/", 0) == 0) {
          EXPECT_LE(RelativeRms(arrays.at(name), want), 1e-5) << name << " on rank " << rank;
        } else if (name.rfind("parameter/", 0) == 0) {
          EXPECT_EQ(arrays.at(name), want) << name << " on rank " << rank;
        }
      }
      EXPECT_EQ(records[rank].parameters, records[0].parameters) << "rank " << rank;
    }
  }
}

class TrainerMethodTest : public TrainerTest,
                          public ::testing::WithParamInterface<SequenceParallelMethod> {};

TEST_P(TrainerMethodTest, TrainsAsOneRankDoes) {
  constexpr size_t kSteps = 6;
  LocalTrainingOptions options = Options(Spec(1, 1));
  options.spec.mutable_model()->set_hidden_size(48);
  options.spec.mutable_model()->set_heads(12);
  options.spec.mutable_model()->set_lrpe_theta(lasp::v1::ModelSpec::LRPE_THETA_LEARNED);
  // Slices of any number of ranks end inside a block of 64.
  options.spec.mutable_data()->set_sequence_length(276);
  options.spec.set_micro_batch_size(2);
  options.spec.set_max_steps(kSteps);
  options.dump_directory = folder_.Join("dump-1");
  const auto expected = Train(options);
  const auto expected_arrays = ReadDump(options.dump_directory + "/rank-0");
  auto& sp = *options.spec.mutable_parallelism()->mutable_sequence_parallel();
  sp.set_method(GetParam().method);
  for (const int size : {1, 2, 3, 4}) {
    SCOPED_TRACE(size);
    sp.set_size(size);
    options.dump_directory = folder_.Join(absl::StrCat("dump-", size));
    const auto records = Train(options);
    ASSERT_EQ(Losses(records).size(), kSteps);
    for (size_t step = 0; step < kSteps; ++step) {
      EXPECT_NEAR(Losses(records)[step] / Losses(expected)[step], 1, 1e-5) << step + 1;
    }
    for (size_t rank = 0; rank < records.size(); ++rank) {
      const auto arrays = ReadDump(absl::StrCat(options.dump_directory, "/rank-", rank));
      for (const auto& [name, want] : expected_arrays) {
        if (name.rfind("gradient/", 0) == 0) {
          EXPECT_LE(RelativeRms(arrays.at(name), want), 1e-5) << name << " on rank " << rank;
        }
      }
      EXPECT_EQ(records[rank].parameters, records[0].parameters) << "rank " << rank;
    }
    if (size == 3) {
      EXPECT_EQ(Losses(Train(options)), Losses(records));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, TrainerMethodTest, ::testing::ValuesIn(SequenceParallelMethods()),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST_F(TrainerTest, TwoRunsOfOneShapeAreBitEqual) {
  const auto first = Train(Options(Spec(2, 2)));
  const auto second = Train(Options(Spec(2, 2)));
  EXPECT_EQ(Losses(first), Losses(second));
  EXPECT_EQ(GradientNorms(first), GradientNorms(second));
  EXPECT_EQ(first[3].parameters, second[3].parameters);
}

TEST_F(TrainerTest, WhatIsComputedAnewChangesNoLoss) {
  lasp::v1::TrainingSpec spec = Spec(2, 1);
  spec.mutable_model()->set_layers(3);
  spec.set_micro_batch_size(2);
  const auto kept = Train(Options(spec));
  spec.mutable_memory()->set_activations(lasp::v1::MemorySpec::ACTIVATIONS_RECOMPUTE);
  for (const auto what :
       {lasp::v1::MemorySpec::RECOMPUTE_BLOCKS, lasp::v1::MemorySpec::RECOMPUTE_SELECTIVE}) {
    spec.mutable_memory()->set_recompute(what);
    const auto recomputed = Train(Options(spec));
    EXPECT_EQ(Losses(recomputed), Losses(kept)) << what;
    EXPECT_EQ(recomputed[1].parameters, kept[1].parameters) << what;
  }
}

TEST_F(TrainerTest, AccumulatingMicroBatchesIsTheWholeBatch) {
  lasp::v1::TrainingSpec spec = Spec(2, 1);
  spec.set_max_steps(5);
  spec.set_micro_batch_size(4);
  const auto whole = Train(Options(spec));
  spec.set_micro_batch_size(1);
  const auto accumulated = Train(Options(spec));
  for (size_t step = 0; step < 5; ++step) {
    EXPECT_NEAR(Losses(accumulated)[step] / Losses(whole)[step], 1, 1e-5);
    EXPECT_NEAR(GradientNorms(accumulated)[step] / GradientNorms(whole)[step], 1, 1e-4);
  }
}

TEST_F(TrainerTest, ReportsWhatEachRankSends) {
  lasp::v1::TrainingSpec spec = Spec(3, 1);
  spec.set_max_steps(2);
  const auto records = Train(Options(spec));
  // Two layers of B H d_k d_v floats, the first with twice the keys; four micro-batches a step.
  constexpr int64_t kStateBytes = int64_t{2} * 16 * 16 * 4;
  constexpr int64_t kDirection = kStateBytes * 4 * 3;
  EXPECT_EQ(records[0].steps[1].sp_sent_bytes_total(), 2 * kDirection);
  EXPECT_EQ(records[1].steps[1].sp_sent_bytes_total(), 4 * kDirection);
  EXPECT_EQ(records[2].steps[1].sp_sent_bytes_total(), 2 * kDirection);
  EXPECT_EQ(records[1].steps[1].tokens_total(), 2 * 4 * 128);
  EXPECT_FALSE(records[1].steps[1].has_metrics());
  EXPECT_EQ(records[0].steps[1].metrics().token_count(), 2 * 4 * 384);
  EXPECT_GT(records[0].steps[1].dp_sent_bytes_total(), 0);
}

TEST_F(TrainerTest, AStepWithoutAFiniteGradientIsSkippedEverywhereAndTooManyFailTheJob) {
  lasp::v1::TrainingSpec spec = Spec(2, 1);
  spec.mutable_model()->set_init_std(1e30);  // overflows in the first product
  spec.mutable_optimizer()->set_max_skipped_steps(2);
  const auto records = TrainLocally(Options(spec));
  for (const LocalTrainingRecord& record : records) {
    EXPECT_THAT(record.status, StatusIs(absl::StatusCode::kFailedPrecondition,
                                        HasSubstr("optimizer.max_skipped_steps")));
    ASSERT_EQ(record.steps.size(), 3u);
    EXPECT_EQ(record.steps.back().skipped_steps_total(), 3);
  }
  EXPECT_TRUE(records[0].steps[0].metrics().skipped());
}

// The parameters of one rank's first column, poisoned after one step: the next step is not finite.
void PoisonAfter(int64_t poisoned, LocalTrainingOptions* options) {
  options->on_tensors = [poisoned](int /*rank*/, int64_t step, const Trainer& trainer,
                                   Backend& backend) {
    if (step == poisoned) {
      const float infinite = std::numeric_limits<float>::infinity();
      backend.CopyFromHost(&infinite, trainer.parameters().Columns(0, 1));
    }
  };
}

TEST_F(TrainerTest, AStepThatIsNotFiniteEndsTheRunWhereTheSpecSaysSo) {
  for (const auto policy :
       {lasp::v1::RecoverySpec::BAD_STEP_ROLL_BACK, lasp::v1::RecoverySpec::BAD_STEP_HALT}) {
    LocalTrainingOptions options = Options(Spec(2, 1));
    options.spec.mutable_recovery()->set_non_finite(policy);
    PoisonAfter(3, &options);
    for (const LocalTrainingRecord& record : TrainLocally(options)) {
      EXPECT_EQ(ErrorReason(record.status), "NON_FINITE_STEP");
      EXPECT_EQ(ErrorMetadata(record.status, "step"), "4");
      EXPECT_EQ(ExitCodeOf(record.status),
                policy == lasp::v1::RecoverySpec::BAD_STEP_HALT ? kRankDoNotRequeue : kRankRetry);
      EXPECT_EQ(record.steps.size(), 3u);
    }
  }
}

TEST_F(TrainerTest, ALossFarAboveTheOthersIsAnOutlier) {
  // The parameters are thrown off after step 35, and put right again after 36.
  lasp::v1::TrainingSpec spec = Spec(1, 1);
  spec.set_max_steps(40);
  spec.mutable_optimizer()->set_learning_rate(1e-4);
  for (const auto policy :
       {lasp::v1::RecoverySpec::BAD_STEP_REPORT, lasp::v1::RecoverySpec::BAD_STEP_SKIP,
        lasp::v1::RecoverySpec::BAD_STEP_HALT}) {
    LocalTrainingOptions options = Options(spec);
    options.spec.mutable_recovery()->set_outlier(policy);
    std::vector<float> kept;
    options.on_tensors = [&kept](int /*rank*/, int64_t step, const Trainer& trainer,
                                 Backend& backend) {
      const Tensor all = trainer.parameters();
      if (step == 35) {
        kept.resize(static_cast<size_t>(all.columns));
        backend.CopyToHost(all, kept.data());
        std::vector<float> thrown_off = kept;
        for (float& value : thrown_off) {
          value *= 1000;
        }
        backend.CopyFromHost(thrown_off.data(), all);
      } else if (step == 36) {
        backend.CopyFromHost(kept.data(), all);
      }
    };
    const auto records = TrainLocally(options);
    if (policy == lasp::v1::RecoverySpec::BAD_STEP_HALT) {
      EXPECT_EQ(ErrorReason(records[0].status), "OUTLIER_STEP");
      EXPECT_EQ(ExitCodeOf(records[0].status), kRankDoNotRequeue);
      continue;
    }
    LASP_ASSERT_OK(records[0].status);
    ASSERT_EQ(records[0].steps.size(), 40u);
    for (const lasp::internal::v1::RankStep& step : records[0].steps) {
      EXPECT_EQ(step.metrics().outlier(), step.step() == 36) << step.step();
      EXPECT_EQ(step.metrics().skipped(),
                step.step() == 36 && policy == lasp::v1::RecoverySpec::BAD_STEP_SKIP);
    }
  }
}

TEST_F(TrainerTest, OutliersWithoutEndAreSaidToBeOutliers) {
  // The parameters stay thrown off.
  lasp::v1::TrainingSpec spec = Spec(1, 1);
  spec.set_max_steps(60);
  spec.mutable_optimizer()->set_learning_rate(1e-4);
  spec.mutable_recovery()->set_outlier(lasp::v1::RecoverySpec::BAD_STEP_SKIP);
  LocalTrainingOptions options = Options(spec);
  options.on_tensors = [](int /*rank*/, int64_t step, const Trainer& trainer, Backend& backend) {
    if (step == 35) {
      std::vector<float> values(static_cast<size_t>(trainer.parameters().columns));
      backend.CopyToHost(trainer.parameters(), values.data());
      for (float& value : values) {
        value *= 1000;
      }
      backend.CopyFromHost(values.data(), trainer.parameters());
    }
  };
  const auto records = TrainLocally(options);
  EXPECT_THAT(records[0].status, StatusIs(absl::StatusCode::kFailedPrecondition,
                                          HasSubstr("an outlier (recovery.outlier), more than "
                                                    "optimizer.max_skipped_steps (10)")));
  EXPECT_EQ(ExitCodeOf(records[0].status), kRankWrongConfiguration);
  EXPECT_EQ(records[0].steps.back().step(), 46);
}

TEST_F(TrainerTest, ADrainOfOneRankTakesAllAfterTheSameStep) {
  LocalTrainingOptions options = Options(Spec(2, 2));
  options.on_step = [](int rank, const lasp::internal::v1::RankStep& step, DrainRequest& drain) {
    if (rank == 2 && step.step() == 3) {
      drain.Request();
    }
  };
  const auto records = Train(options);
  for (const LocalTrainingRecord& record : records) {
    EXPECT_TRUE(record.end.drained);
    EXPECT_EQ(record.end.step, 4);
    EXPECT_EQ(record.steps.size(), 4u);
  }
}

// As on a device: a sum that is broken off ends like any other for whoever waits for it there, and
// only the host is told, later.
class BreakableCommunicator : public ForwardingCommunicator {
 public:
  BreakableCommunicator(Communicator* inner, const bool* broken)
      : ForwardingCommunicator(inner), broken_(*broken) {}

  Operation AllReduceSum(Tensor data) override {
    return broken_ ? Operation(std::make_shared<End>(), absl::Seconds(1))
                   : inner().AllReduceSum(data);
  }

 private:
  class End : public Completion {
   public:
    absl::Status Wait(absl::Duration /*timeout*/) override {
      return waited_++ == 0 ? absl::OkStatus() : absl::UnavailableError("a peer is gone");
    }

   private:
    int waited_ = 0;
  };

  const bool& broken_;
};

TEST_F(TrainerTest, AStepWhoseSumsWereBrokenOffIsNone) {
  constexpr int64_t kLastWhole = 3;
  LocalTrainingOptions options = Options(Spec(1, 2));
  bool broken = false;  // rank 0's thread has it
  options.run_ranks = [&broken](int sp_size, int dp_size, const auto& body) {
    return RunLocalRanks({.sp_size = sp_size, .dp_size = dp_size}, [&](LocalRank& rank) {
      BreakableCommunicator world(rank.world, &broken);
      if (rank.grid.rank() == 0) {
        rank.world = &world;
      }
      return body(rank);
    });
  };
  options.on_step = [&broken](int rank, const lasp::internal::v1::RankStep& step,
                              DrainRequest& /*drain*/) {
    if (rank == 0) {
      broken |= step.step() == kLastWhole;
    }
  };
  const auto records = TrainLocally(options);
  EXPECT_THAT(records[0].status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("gone")));
  EXPECT_EQ(ExitCodeOf(records[0].status), kRankRetry);
  EXPECT_EQ(records[0].steps.size(), kLastWhole);
}

TEST_F(TrainerTest, ACorpusThatShrinksUnderARunIsNamed) {
  LocalTrainingOptions options = Options(Spec(1, 1));
  options.spec.set_max_steps(200);
  options.on_step = [this](int, const lasp::internal::v1::RankStep& step, DrainRequest&) {
    if (step.step() == 2) {
      folder_.Write("corpus.txt", "gone");
    }
  };
  const auto records = TrainLocally(options);
  EXPECT_THAT(records[0].status, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("corpus.txt")));
  EXPECT_LT(records[0].steps.size(), 20u);
}

TEST_F(TrainerTest, WhatCannotFitIsRefusedBeforeItStartsWithTheBill) {
  lasp::v1::TrainingSpec spec = Spec(1, 1);
  spec.mutable_model()->set_hidden_size(1 << 21);
  const std::vector<LocalTrainingRecord> records = TrainLocally(Options(spec));
  EXPECT_THAT(records[0].status,
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("optimizer 320.0 TiB")));
  EXPECT_THAT(records[0].status.message(), HasSubstr("use more ranks, or a smaller model"));
  EXPECT_TRUE(records[0].steps.empty());
  // Two ranks could share what the optimizer keeps.
  spec.mutable_parallelism()->mutable_data_parallel()->set_size(2);
  EXPECT_THAT(TrainLocally(Options(spec))[0].status.message(),
              HasSubstr("or parallelism.data_parallel.method ZERO3"));
  spec.mutable_parallelism()->mutable_data_parallel()->set_method(
      lasp::v1::DataParallelSpec::METHOD_ZERO1);
  EXPECT_THAT(TrainLocally(Options(spec))[0].status.message(), HasSubstr("optimizer 160.0 TiB"));
}

}  // namespace
}  // namespace lasp::worker
