// The same training on a GPU as on the CPU.
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/gpu.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/dump_reader.h"
#include "tests/worker/engine/local_training.h"
#include "tests/worker/parallel/gpu_ranks.h"
#include "worker/device/cuda_backend.h"

namespace lasp::worker {
namespace {

class CudaTraining : public ::lasp::testing::GpuTest {
 protected:
  CudaTraining() { folder_.Write("corpus.txt", MakeText(400'000, 5)); }

  // The quick start's model, on one rank.
  static lasp::v1::TrainingSpec Spec() {
    lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
    spec.mutable_model()->set_hidden_size(256);
    spec.mutable_model()->set_heads(4);
    spec.mutable_model()->set_glu_size(704);
    spec.mutable_data()->set_sequence_length(1000);
    spec.set_max_steps(20);
    return spec;
  }

  // Two ranks on two GPUs.
  std::vector<LocalTrainingRecord> TrainOnTwo(lasp::v1::TrainingSpec spec, int sp_size) {
    spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
    spec.mutable_parallelism()->mutable_data_parallel()->set_size(2 / sp_size);
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    options.dump_directory = folder_.Join("two");
    options.run_ranks = [](int sp, int dp, const std::function<absl::Status(LocalRank&)>& body) {
      return RunGpuRanks({.sp_size = sp, .dp_size = dp}, body);
    };
    std::vector<LocalTrainingRecord> records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
    }
    return records;
  }

  LocalTrainingRecord Train(const lasp::v1::TrainingSpec& spec, bool gpu) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    options.dump_directory = folder_.Join(gpu ? "gpu" : "cpu");
    if (gpu) {
      options.create_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
        return CreateCudaBackend({});
      };
    }
    LocalTrainingRecord record = TrainLocally(options)[0];
    LASP_EXPECT_OK(record.status);
    return record;
  }

  ::lasp::testing::TempDirectory folder_;
};

TEST_F(CudaTraining, FollowsTheCpuFromTheSameParameters) {
  const std::vector<double> cpu = Losses({Train(Spec(), false)});
  const std::vector<double> gpu = Losses({Train(Spec(), true)});
  ASSERT_EQ(gpu.size(), 20u);
  EXPECT_LT(gpu.back(), gpu.front() - 0.5);
  for (size_t step = 0; step < cpu.size(); ++step) {
    EXPECT_NEAR(gpu[step] / cpu[step], 1, 0.01) << "step " << step + 1;
  }
  const auto want = ReadDump(folder_.Join("cpu") + "/rank-0");
  const auto got = ReadDump(folder_.Join("gpu") + "/rank-0");
  double worst = 0;
  for (const auto& [name, tensor] : want) {
    if (name.rfind("parameter/", 0) == 0) {
      EXPECT_EQ(got.at(name), tensor) << name;
    } else if (name.rfind("gradient/", 0) == 0) {
      const double error = RelativeRms(got.at(name), tensor);
      EXPECT_LE(error, 2e-2) << name;
      worst = std::max(worst, error);
    }
  }
  std::printf("worst gradient tensor: %.2e\n", worst);
}

TEST_F(CudaTraining, TwoRunsAreBitEqual) {
  const LocalTrainingRecord first = Train(Spec(), true);
  const LocalTrainingRecord second = Train(Spec(), true);
  EXPECT_EQ(Losses({first}), Losses({second}));
  EXPECT_EQ(GradientNorms({first}), GradientNorms({second}));
  EXPECT_EQ(first.parameters, second.parameters);
}

TEST_F(CudaTraining, TwoGpusAreAsOne) {
  if (::lasp::testing::GpuCount() < 2) {
    GTEST_SKIP() << "there is one GPU";
  }
  const std::vector<double> one = Losses({Train(Spec(), true)});
  const auto want = ReadDump(folder_.Join("gpu") + "/rank-0");
  for (const int sp_size : {2, 1}) {
    const std::vector<LocalTrainingRecord> records = TrainOnTwo(Spec(), sp_size);
    const std::vector<double> two = Losses(records);
    ASSERT_EQ(two.size(), one.size());
    for (size_t step = 0; step < one.size(); ++step) {
      EXPECT_NEAR(two[step] / one[step], 1, 5e-3) << "SP " << sp_size << " step " << step + 1;
    }
    EXPECT_EQ(records[0].parameters, records[1].parameters) << "SP " << sp_size;
    const auto got = ReadDump(folder_.Join("two") + "/rank-0");
    double worst = 0;
    for (const auto& [name, tensor] : want) {
      if (name.rfind("gradient/", 0) == 0) {
        const double error = RelativeRms(got.at(name), tensor);
        EXPECT_LE(error, 1e-2) << "SP " << sp_size << " " << name;
        worst = std::max(worst, error);
      }
    }
    std::printf("SP %d: worst gradient tensor against one GPU: %.2e\n", sp_size, worst);
    const std::vector<LocalTrainingRecord> again = TrainOnTwo(Spec(), sp_size);
    EXPECT_EQ(Losses(again), two) << "SP " << sp_size;
    EXPECT_EQ(again[1].parameters, records[1].parameters) << "SP " << sp_size;
  }
}

TEST_F(CudaTraining, WhatCannotFitIsRefusedWithTheBill) {
  lasp::v1::TrainingSpec spec = Spec();
  spec.mutable_model()->set_hidden_size(1 << 18);
  spec.mutable_model()->set_heads(1 << 11);
  LocalTrainingOptions options;
  options.spec = spec;
  options.path_roots = {folder_.path()};
  options.create_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
    return CreateCudaBackend({});
  };
  EXPECT_THAT(TrainLocally(options)[0].status,
              ::lasp::testing::StatusIs(absl::StatusCode::kFailedPrecondition,
                                        ::testing::AllOf(::testing::HasSubstr("are free"),
                                                         ::testing::HasSubstr("optimizer"))));
}

}  // namespace
}  // namespace lasp::worker
