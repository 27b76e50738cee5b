// The same training on a GPU as on the CPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "tests/support/gpu.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/dump_reader.h"
#include "tests/worker/engine/local_training.h"
#include "tests/worker/engine/model_100m.h"
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

  LocalTrainingRecord Train(const lasp::v1::TrainingSpec& spec, bool gpu) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    if (spec.model().layers() == Spec().model().layers()) {
      options.dump_directory = folder_.Join(gpu ? "gpu" : "cpu");
    }
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

// The CPU's losses are in a file: computing them takes a quarter of an hour.
TEST_F(CudaTraining, AHundredMillionParametersFollowTheCpu) {
  const std::vector<double> cpu = {
#include "tests/worker/engine/model_100m_losses.inc"
  };
  folder_.Write("corpus.bin", Model100MCorpus());
  const std::vector<double> gpu = Losses({Train(Model100MSpec("corpus.bin"), true)});
  ASSERT_EQ(gpu.size(), cpu.size());
  double worst = 0;
  for (size_t step = 0; step < cpu.size(); ++step) {
    const double difference = std::abs(gpu[step] / cpu[step] - 1);
    EXPECT_LE(difference, 0.01) << "step " << step + 1;
    worst = std::max(worst, difference);
  }
  EXPECT_LT(gpu.back(), gpu.front() - 2);
  std::printf("100M model: loss %.4f to %.4f, at most %.2e from the CPU's\n", gpu.front(),
              gpu.back(), worst);
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
