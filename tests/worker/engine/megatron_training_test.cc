// Jobs whose SP groups share out heads and the MLP's columns (MEGATRON_SP) are the training of one
// rank, and their checkpoints are as all others.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/committed_step.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/dump_reader.h"
#include "tests/worker/engine/local_training.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::TempDirectory;
using ::lasp::v1::DataParallelSpec;
using ::lasp::v1::MemorySpec;
using ::lasp::v1::ModelSpec;
using ::lasp::v1::SequenceParallelSpec;

constexpr char kFolder[] = "default/uid";

struct Shape {
  int sp = 1;
  int dp = 1;
};

class MegatronTrainingTest : public ::testing::TestWithParam<ModelSpec::Architecture> {
 protected:
  MegatronTrainingTest() {
    folder_.Write("corpus.txt", MakeText(100'000, 5));
    std::filesystem::create_directories(root_.Join(kFolder));
  }

  // Twelve heads, and a gated MLP, that any of 1 to 4 ranks shares out evenly.
  static lasp::v1::TrainingSpec Spec(
      Shape shape = {}, SequenceParallelSpec::Method method = SequenceParallelSpec::METHOD_LASP) {
    lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
    lasp::v1::ModelSpec& model = *spec.mutable_model();
    model.set_architecture(GetParam());
    model.set_layers(2);
    model.set_hidden_size(48);
    model.set_heads(12);
    model.set_glu_size(60);
    model.set_tie_embeddings(GetParam() == ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER);
    if (GetParam() == ModelSpec::ARCHITECTURE_TRANSNORMER) {
      model.set_lrpe_theta(ModelSpec::LRPE_THETA_LEARNED);
    }
    spec.mutable_data()->set_sequence_length(276);
    spec.set_global_batch_size(4);
    spec.set_micro_batch_size(1);
    spec.set_max_steps(10);
    spec.mutable_optimizer()->set_warmup_steps(2);
    lasp::v1::ParallelismSpec& parallelism = *spec.mutable_parallelism();
    parallelism.mutable_sequence_parallel()->set_size(shape.sp);
    parallelism.mutable_sequence_parallel()->set_method(method);
    parallelism.mutable_data_parallel()->set_size(shape.dp);
    return spec;
  }

  static lasp::v1::TrainingSpec Megatron(Shape shape) {
    return Spec(shape, SequenceParallelSpec::METHOD_MEGATRON_SP);
  }

  LocalTrainingOptions Options(const lasp::v1::TrainingSpec& spec, DType type = DType::kFloat32) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    options.dump_directory = folder_.Join(absl::StrCat("dump-", dumps_++));
    options.create_backend = [type] { return CreateCpuBackend(type, 1); };
    return options;
  }

  static std::vector<LocalTrainingRecord> Train(const LocalTrainingOptions& options) {
    auto records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
    }
    return records;
  }

  struct OneRank {
    std::vector<double> losses;
    std::vector<double> norms;
    std::string dump;
  };

  const OneRank& Alone(DType type) {
    OneRank& alone = one_rank_[type];
    if (alone.losses.empty()) {
      const LocalTrainingOptions options = Options(Spec(), type);
      const auto records = Train(options);
      alone = {Losses(records), GradientNorms(records), options.dump_directory};
    }
    return alone;
  }

  // Losses and norms, each parameter before step 1 and its gradient, on every rank.
  void ExpectAsOneRank(const lasp::v1::TrainingSpec& spec, DType type, double bar) {
    SCOPED_TRACE(spec.parallelism().ShortDebugString() + " " + spec.memory().ShortDebugString());
    const OneRank& alone = Alone(type);
    const LocalTrainingOptions shared = Options(spec, type);
    const auto records = Train(shared);
    ASSERT_EQ(Losses(records).size(), 10u);
    for (size_t step = 0; step < 10; ++step) {
      EXPECT_NEAR(Losses(records)[step] / alone.losses[step], 1, bar) << "step " << step + 1;
      EXPECT_NEAR(GradientNorms(records)[step] / alone.norms[step], 1, 20 * bar)
          << "step " << step + 1;
    }
    const auto want = ReadDump(alone.dump + "/rank-0");
    for (size_t rank = 0; rank < records.size(); ++rank) {
      const auto got = ReadDump(absl::StrCat(shared.dump_directory, "/rank-", rank));
      for (const auto& [name, values] : want) {
        if (name.rfind("gradient/", 0) == 0) {
          EXPECT_LE(RelativeRms(got.at(name), values), bar) << name << " rank " << rank;
        } else if (name.rfind("parameter/", 0) == 0) {
          EXPECT_EQ(got.at(name), values) << name << " rank " << rank;
        }
      }
    }
  }

  LocalTrainingOptions Saving(const lasp::v1::TrainingSpec& spec) {
    LocalTrainingOptions options = Options(spec);
    options.spec.mutable_checkpoint()->set_interval_steps(4);
    options.dump_directory.clear();
    options.checkpoint_root = root_.path();
    options.checkpoint_folder = kFolder;
    options.generation = generation_++;
    return options;
  }

  TempDirectory folder_;
  TempDirectory root_;
  int dumps_ = 0;
  int64_t generation_ = 1;
  std::map<DType, OneRank> one_rank_;
};

TEST_P(MegatronTrainingTest, TrainsAsOneRankDoes) {
  for (const Shape shape : {Shape{1, 1}, Shape{2, 2}, Shape{3, 1}, Shape{4, 1}}) {
    ExpectAsOneRank(Megatron(shape), DType::kFloat32, 1e-5);
  }
}

// Minutes: for the nightly run.
TEST_P(MegatronTrainingTest, NightlyEveryShapeAndPlan) {
  for (const int sp : {1, 2, 3, 4}) {
    for (const int dp : {1, 2}) {
      for (const auto method : {DataParallelSpec::METHOD_DDP, DataParallelSpec::METHOD_LEGACY_DDP,
                                DataParallelSpec::METHOD_ZERO1, DataParallelSpec::METHOD_ZERO2,
                                DataParallelSpec::METHOD_ZERO3}) {
        for (const auto activations :
             {MemorySpec::ACTIVATIONS_KEEP, MemorySpec::ACTIVATIONS_RECOMPUTE,
              MemorySpec::ACTIVATIONS_STREAM}) {
          lasp::v1::TrainingSpec spec = Megatron({sp, dp});
          spec.mutable_parallelism()->mutable_data_parallel()->set_method(method);
          spec.mutable_memory()->set_activations(activations);
          if (activations == MemorySpec::ACTIVATIONS_STREAM) {
            spec.mutable_memory()->set_stream_chunk_tokens(40);
          }
          ExpectAsOneRank(spec, DType::kFloat32, 1e-5);
        }
      }
    }
  }
}

TEST_P(MegatronTrainingTest, RoundingIsAllThatDiffers) {
  ExpectAsOneRank(Megatron({2, 2}), DType::kFloat64, 1e-11);
}

TEST_P(MegatronTrainingTest, EveryDataParallelMethodTrainsAsOneRankDoes) {
  for (const auto method : {DataParallelSpec::METHOD_LEGACY_DDP, DataParallelSpec::METHOD_ZERO1,
                            DataParallelSpec::METHOD_ZERO2, DataParallelSpec::METHOD_ZERO3}) {
    lasp::v1::TrainingSpec spec = Megatron({2, 2});
    spec.mutable_parallelism()->mutable_data_parallel()->set_method(method);
    ExpectAsOneRank(spec, DType::kFloat32, 1e-5);
  }
}

TEST_P(MegatronTrainingTest, WhatIsComputedAnewIsTheSame) {
  const lasp::v1::TrainingSpec spec = Megatron({3, 1});
  const auto kept = Train(Options(spec));
  for (const auto& [activations, recompute] :
       {std::pair(MemorySpec::ACTIVATIONS_RECOMPUTE, MemorySpec::RECOMPUTE_BLOCKS),
        std::pair(MemorySpec::ACTIVATIONS_RECOMPUTE, MemorySpec::RECOMPUTE_SELECTIVE),
        std::pair(MemorySpec::ACTIVATIONS_OFFLOAD, MemorySpec::RECOMPUTE_BLOCKS)}) {
    lasp::v1::TrainingSpec again = spec;
    again.mutable_memory()->set_activations(activations);
    again.mutable_memory()->set_recompute(recompute);
    SCOPED_TRACE(again.memory().ShortDebugString());
    const auto records = Train(Options(again));
    EXPECT_EQ(Losses(records), Losses(kept));
    for (size_t rank = 0; rank < records.size(); ++rank) {
      EXPECT_EQ(records[rank].parameters, kept[rank].parameters);
    }
  }
}

// 276 tokens: macro-chunks of 100 and 76; of 100, with a short slice; two of 138; of 120, behind
// which two ranks have none; of 132, behind which three have none.
TEST_P(MegatronTrainingTest, SequencesInMacroChunksTrainAsOneRankDoes) {
  struct Case {
    Shape shape;
    int64_t chunk_tokens;
    DataParallelSpec::Method method;
    DType type;
  };

  for (const auto& [shape, chunk, method, type] :
       {Case{{1, 1}, 100, DataParallelSpec::METHOD_DDP, DType::kFloat32},
        Case{{2, 2}, 50, DataParallelSpec::METHOD_ZERO3, DType::kFloat32},
        Case{{3, 1}, 46, DataParallelSpec::METHOD_ZERO1, DType::kFloat32},
        Case{{3, 1}, 40, DataParallelSpec::METHOD_DDP, DType::kFloat64},
        Case{{4, 1}, 33, DataParallelSpec::METHOD_ZERO3, DType::kFloat32}}) {
    lasp::v1::TrainingSpec spec = Megatron(shape);
    spec.mutable_parallelism()->mutable_data_parallel()->set_method(method);
    spec.mutable_memory()->set_activations(MemorySpec::ACTIVATIONS_STREAM);
    spec.mutable_memory()->set_stream_chunk_tokens(chunk);
    ExpectAsOneRank(spec, type, type == DType::kFloat64 ? 1e-11 : 1e-5);
  }
}

TEST_P(MegatronTrainingTest, ACheckpointGoesOnToTheBit) {
  for (const auto& [shape, method] : {std::pair(Shape{3, 1}, DataParallelSpec::METHOD_DDP),
                                      std::pair(Shape{2, 2}, DataParallelSpec::METHOD_DDP),
                                      std::pair(Shape{2, 2}, DataParallelSpec::METHOD_ZERO1),
                                      std::pair(Shape{2, 2}, DataParallelSpec::METHOD_ZERO3)}) {
    lasp::v1::TrainingSpec spec = Megatron(shape);
    spec.mutable_parallelism()->mutable_data_parallel()->set_method(method);
    const LocalTrainingOptions saving = Saving(spec);
    const auto whole = Train(saving);
    LocalTrainingOptions resuming = saving;
    resuming.generation = generation_++;
    resuming.restore_from = CommitStep(saving, whole, 4);
    const auto resumed = Train(resuming);
    const std::vector<double> losses = Losses(whole);
    EXPECT_EQ(Losses(resumed), std::vector<double>(losses.begin() + 4, losses.end()));
    for (size_t rank = 0; rank < whole.size(); ++rank) {
      EXPECT_EQ(resumed[rank].parameters, whole[rank].parameters) << rank;
    }
  }
}

// From MEGATRON_SP to another method and shape, and back from there.
TEST_P(MegatronTrainingTest, CheckpointsGoToOtherMethodsAndBack) {
  const std::vector<double> expected = Alone(DType::kFloat32).losses;
  const auto expect_from = [&](const std::vector<LocalTrainingRecord>& records, size_t first) {
    const std::vector<double> losses = Losses(records);
    ASSERT_EQ(losses.size(), expected.size() - first);
    for (size_t step = 0; step < losses.size(); ++step) {
      EXPECT_NEAR(losses[step] / expected[step + first], 1, 1e-5) << "step " << first + step + 1;
    }
  };
  const LocalTrainingOptions first = Saving(Megatron({4, 1}));
  lasp::v1::CheckpointReference reference = CommitStep(first, Train(first), 4);

  lasp::v1::TrainingSpec other = Spec({3, 1}, SequenceParallelSpec::METHOD_LASP);
  other.mutable_parallelism()->mutable_data_parallel()->set_method(DataParallelSpec::METHOD_ZERO3);
  LocalTrainingOptions second = Saving(other);
  second.restore_from = reference;
  const auto in_between = Train(second);
  expect_from(in_between, 4);

  lasp::v1::TrainingSpec back = Megatron({2, 2});
  back.mutable_parallelism()->mutable_data_parallel()->set_method(DataParallelSpec::METHOD_ZERO2);
  LocalTrainingOptions third = Saving(back);
  third.restore_from = CommitStep(second, in_between, 8);
  expect_from(Train(third), 8);
}

INSTANTIATE_TEST_SUITE_P(Models, MegatronTrainingTest,
                         ::testing::Values(ModelSpec::ARCHITECTURE_TRANSNORMER,
                                           ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER),
                         [](const auto& tested) {
                           return std::string(tested.param == ModelSpec::ARCHITECTURE_TRANSNORMER
                                                  ? "TransNormer"
                                                  : "LinearTransformer");
                         });

}  // namespace
}  // namespace lasp::worker
