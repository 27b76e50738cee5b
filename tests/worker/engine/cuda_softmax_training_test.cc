// Models with layers of softmax attention train on a GPU as on the CPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/gpu.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/dump_reader.h"
#include "tests/worker/engine/local_training.h"
#include "worker/device/cuda_backend.h"
#include "worker/device/cuda_softmax.h"

namespace lasp::worker {
namespace {

using ::lasp::v1::MemorySpec;
using ::lasp::v1::ModelSpec;

class CudaSoftmaxTraining : public ::lasp::testing::GpuTest {
 protected:
  CudaSoftmaxTraining() { folder_.Write("corpus.txt", MakeText(400'000, 5)); }

  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped() && !HasFatalFailure()) {
      LASP_ASSERT_OK(LoadSoftmaxAttention());
    }
  }

  // The quick start's model, wider, with two heads of queries to one of keys.
  static lasp::v1::TrainingSpec Spec(const std::string& pattern) {
    lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
    ModelSpec& model = *spec.mutable_model();
    model.set_layer_pattern(pattern);
    model.set_layers(4);
    model.set_hidden_size(256);
    model.set_heads(4);
    model.set_kv_heads(2);
    model.set_glu_size(704);
    spec.mutable_data()->set_sequence_length(1000);
    spec.set_max_steps(6);  // a step takes the CPU three seconds
    return spec;
  }

  struct Run {
    std::vector<double> losses;
    std::string dump;
    std::vector<float> parameters;
  };

  Run Train(const lasp::v1::TrainingSpec& spec, bool gpu) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    options.dump_directory = folder_.Join(absl::StrCat("dump-", dumps_++));
    if (gpu) {
      options.create_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
        return CreateCudaBackend({});
      };
    }
    const LocalTrainingRecord record = TrainLocally(options)[0];
    LASP_EXPECT_OK(record.status);
    return {.losses = Losses({record}),
            .dump = options.dump_directory + "/rank-0",
            .parameters = record.parameters};
  }

  // Losses step by step, and each tensor of the first step's gradient.
  static void ExpectAlike(const Run& run, const Run& expected, double loss_tolerance,
                          double gradient_tolerance) {
    ASSERT_EQ(run.losses.size(), expected.losses.size());
    double worst_loss = 0;
    for (size_t step = 0; step < run.losses.size(); ++step) {
      worst_loss = std::max(worst_loss, std::abs(run.losses[step] / expected.losses[step] - 1));
    }
    EXPECT_LE(worst_loss, loss_tolerance);
    const auto want = ReadDump(expected.dump);
    const auto got = ReadDump(run.dump);
    double worst = 0;
    for (const auto& [name, tensor] : want) {
      if (name.rfind("gradient/", 0) == 0) {
        const double error = RelativeRms(got.at(name), tensor);
        EXPECT_LE(error, gradient_tolerance) << name;
        worst = std::max(worst, error);
      }
    }
    std::printf("worst gradient tensor %.2e, loss %.2e\n", worst, worst_loss);
  }

  ::lasp::testing::TempDirectory folder_;
  int dumps_ = 0;
};

TEST_F(CudaSoftmaxTraining, FollowsTheCpuFromTheSameParameters) {
  for (const std::string pattern : {"LLLN", "LN", "N"}) {
    SCOPED_TRACE(pattern);
    const Run gpu = Train(Spec(pattern), true);
    ExpectAlike(gpu, Train(Spec(pattern), false), 0.01, 2e-2);
    EXPECT_LT(gpu.losses.back(), gpu.losses.front() - 0.5);
  }
}

// Heads of 128, each with keys of its own, among layers of the other architecture.
TEST_F(CudaSoftmaxTraining, FollowsTheCpuInALinearTransformer) {
  lasp::v1::TrainingSpec spec = Spec("NL");
  spec.mutable_model()->set_architecture(ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER);
  spec.mutable_model()->set_heads(2);
  ExpectAlike(Train(spec, true), Train(spec, false), 0.01, 2e-2);
}

TEST_F(CudaSoftmaxTraining, EveryActivationPlanTrainsTheSame) {
  const Run kept = Train(Spec("LN"), true);
  for (const auto& [activations, recompute] :
       {std::pair{MemorySpec::ACTIVATIONS_RECOMPUTE, MemorySpec::RECOMPUTE_BLOCKS},
        std::pair{MemorySpec::ACTIVATIONS_RECOMPUTE, MemorySpec::RECOMPUTE_SELECTIVE},
        std::pair{MemorySpec::ACTIVATIONS_OFFLOAD, MemorySpec::RECOMPUTE_BLOCKS}}) {
    SCOPED_TRACE(absl::StrCat(activations, " ", recompute));
    lasp::v1::TrainingSpec spec = Spec("LN");
    spec.mutable_memory()->set_activations(activations);
    spec.mutable_memory()->set_recompute(recompute);
    ExpectAlike(Train(spec, true), kept, 5e-3, 1e-2);
  }
}

// Sequences are short enough for the backward that sums in one order.
TEST_F(CudaSoftmaxTraining, TwoRunsAreBitEqual) {
  const Run first = Train(Spec("LN"), true);
  const Run second = Train(Spec("LN"), true);
  EXPECT_EQ(second.losses, first.losses);
  EXPECT_EQ(second.parameters, first.parameters);
}

}  // namespace
}  // namespace lasp::worker
