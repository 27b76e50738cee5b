// Models with layers of softmax attention train on two GPUs, by every sequence-parallel method, as
// on one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/gpu.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/dump_reader.h"
#include "tests/worker/engine/local_training.h"
#include "tests/worker/parallel/gpu_ranks.h"
#include "tests/worker/parallel/sequence_parallel_methods.h"
#include "worker/device/cuda_backend.h"
#include "worker/device/cuda_softmax.h"

namespace lasp::worker {
namespace {

// On a GPU each; one alone needs no NCCL.
std::vector<absl::Status> RunRanks(int sp_size, int dp_size,
                                   const std::function<absl::Status(LocalRank&)>& body) {
  if (sp_size * dp_size > 1) {
    return RunGpuRanks({.sp_size = sp_size, .dp_size = dp_size}, body);
  }
  return RunLocalRanks({.create_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
                         return CreateCudaBackend({});
                       }},
                       body);
}

class CudaSoftmaxRanks : public ::lasp::testing::GpuTest {
 protected:
  CudaSoftmaxRanks() : GpuTest(2) { folder_.Write("corpus.txt", MakeText(1'000'000, 5)); }

  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped() && !HasFatalFailure()) {
      LASP_ASSERT_OK(LoadSoftmaxAttention());
    }
  }

  static lasp::v1::TrainingSpec Spec(const std::string& pattern, int sp_size,
                                     lasp::v1::SequenceParallelSpec::Method method) {
    lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
    lasp::v1::ModelSpec& model = *spec.mutable_model();
    model.set_layer_pattern(pattern);
    model.set_layers(4);
    model.set_hidden_size(256);
    model.set_heads(4);
    model.set_kv_heads(2);
    model.set_glu_size(704);
    model.set_init_std(0.02);
    spec.mutable_data()->set_sequence_length(1000);
    spec.set_global_batch_size(16);
    spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
    spec.mutable_parallelism()->mutable_sequence_parallel()->set_method(method);
    // As slow as cuda_ranks_training_test's, so that gradients do not cancel.
    spec.mutable_optimizer()->set_learning_rate(4e-5);
    spec.set_max_steps(20);
    return spec;
  }

  std::vector<double> Train(const lasp::v1::TrainingSpec& spec, const std::string& dump) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    options.dump_directory = folder_.Join(dump);
    options.run_ranks = RunRanks;
    const auto records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
    }
    return Losses(records);
  }

  ::lasp::testing::TempDirectory folder_;
};

TEST_F(CudaSoftmaxRanks, EveryMethodIsTheTrainingOfOneGpu) {
  for (const std::string pattern : {"LLLN", "N"}) {
    const std::vector<double> alone =
        Train(Spec(pattern, 1, lasp::v1::SequenceParallelSpec::METHOD_LASP), pattern + "-alone");
    const auto expected = ReadDump(folder_.Join(pattern + "-alone/rank-0"));
    for (const SequenceParallelMethod& method : EverySequenceParallelMethod()) {
      const std::string name = absl::StrCat(pattern, "-", method.name);
      SCOPED_TRACE(name);
      const lasp::v1::TrainingSpec spec = Spec(pattern, 2, method.method);
      const std::vector<double> losses = Train(spec, name);
      ASSERT_EQ(losses.size(), alone.size());
      double worst_loss = 0;
      for (size_t step = 0; step < losses.size(); ++step) {
        worst_loss = std::max(worst_loss, std::abs(losses[step] / alone[step] - 1));
      }
      EXPECT_LE(worst_loss, 5e-3);
      double worst = 0;
      for (const int rank : {0, 1}) {
        const auto arrays = ReadDump(folder_.Join(absl::StrCat(name, "/rank-", rank)));
        for (const auto& [array, want] : expected) {
          if (array.rfind("gradient/", 0) == 0) {
            const double error = RelativeRms(arrays.at(array), want);
            EXPECT_LE(error, 1e-2) << array << " on rank " << rank;
            worst = std::max(worst, error);
          }
        }
      }
      EXPECT_EQ(Train(spec, name + "-again"), losses);
      std::printf("%s on 2 GPUs against 1: worst gradient tensor %.2e, loss %.2e\n", name.c_str(),
                  worst, worst_loss);
    }
  }
}

}  // namespace
}  // namespace lasp::worker
