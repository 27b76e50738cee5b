// Jobs that train a Linear Transformer: on any ranks, by any method, and from a checkpoint, they
// are the training of one rank.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
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
using ::lasp::v1::SequenceParallelSpec;

constexpr char kFolder[] = "default/uid";
constexpr SequenceParallelSpec::Method kSequenceParallel[] = {
    SequenceParallelSpec::METHOD_LASP, SequenceParallelSpec::METHOD_LASP2,
    SequenceParallelSpec::METHOD_ALL_SCAN, SequenceParallelSpec::METHOD_ULYSSES,
    SequenceParallelSpec::METHOD_RING_ATTENTION};
constexpr DataParallelSpec::Method kDataParallel[] = {
    DataParallelSpec::METHOD_LEGACY_DDP, DataParallelSpec::METHOD_DDP,
    DataParallelSpec::METHOD_ZERO1, DataParallelSpec::METHOD_ZERO2, DataParallelSpec::METHOD_ZERO3};

class LinearTransformerTrainingTest : public ::testing::Test {
 protected:
  LinearTransformerTrainingTest() {
    folder_.Write("corpus.txt", MakeText(100'000, 5));
    std::filesystem::create_directories(root_.Join(kFolder));
  }

  // Twelve heads, and a gated MLP, that any of 1 to 4 ranks shares out evenly.
  static lasp::v1::TrainingSpec Spec() {
    lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
    lasp::v1::ModelSpec& model = *spec.mutable_model();
    model.set_architecture(lasp::v1::ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER);
    model.set_layers(3);
    model.set_hidden_size(48);
    model.set_heads(12);
    model.set_glu_size(60);
    spec.mutable_data()->set_sequence_length(276);
    spec.set_global_batch_size(12);
    spec.set_max_steps(10);
    spec.mutable_optimizer()->set_warmup_steps(2);
    return spec;
  }

  struct Run {
    std::vector<double> losses;
    std::string dump;
    std::vector<LocalTrainingRecord> records;
  };

  LocalTrainingOptions Options(const lasp::v1::TrainingSpec& spec) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    options.dump_directory = folder_.Join(absl::StrCat("dump-", dumps_++));
    return options;
  }

  static Run Train(const LocalTrainingOptions& options) {
    Run run{.losses = {}, .dump = options.dump_directory, .records = TrainLocally(options)};
    for (const LocalTrainingRecord& record : run.records) {
      LASP_EXPECT_OK(record.status);
    }
    run.losses = Losses(run.records);
    return run;
  }

  // Losses, and each gradient tensor of step 1 on each rank, against those of one rank.
  void ExpectAsOneRank(const lasp::v1::TrainingSpec& spec) {
    if (one_rank_.losses.empty()) {
      one_rank_ = Train(Options(Spec()));
    }
    const Run run = Train(Options(spec));
    ASSERT_EQ(run.losses.size(), 10u);
    for (size_t step = 0; step < run.losses.size(); ++step) {
      EXPECT_NEAR(run.losses[step] / one_rank_.losses[step], 1, 1e-5) << "step " << step + 1;
    }
    const auto want = ReadDump(one_rank_.dump + "/rank-0");
    for (size_t rank = 0; rank < run.records.size(); ++rank) {
      const auto got = ReadDump(absl::StrCat(run.dump, "/rank-", rank));
      for (const auto& [name, values] : want) {
        if (name.rfind("gradient/", 0) == 0) {
          EXPECT_LE(RelativeRms(got.at(name), values), 1e-5) << name << " rank " << rank;
        }
      }
    }
  }

  static lasp::v1::TrainingSpec On(int sp_size, SequenceParallelSpec::Method sp, int dp_size,
                                   DataParallelSpec::Method dp) {
    lasp::v1::TrainingSpec spec = Spec();
    lasp::v1::ParallelismSpec& parallelism = *spec.mutable_parallelism();
    parallelism.mutable_sequence_parallel()->set_size(sp_size);
    parallelism.mutable_sequence_parallel()->set_method(sp);
    parallelism.mutable_data_parallel()->set_size(dp_size);
    parallelism.mutable_data_parallel()->set_method(dp);
    return spec;
  }

  static std::string Describe(const lasp::v1::TrainingSpec& spec) {
    return spec.parallelism().ShortDebugString() + " " + spec.memory().ShortDebugString();
  }

  TempDirectory folder_;
  TempDirectory root_;
  int dumps_ = 0;
  Run one_rank_;
};

TEST_F(LinearTransformerTrainingTest, EveryMethodTrainsAsOneRankDoes) {
  for (const lasp::v1::TrainingSpec& spec :
       {On(3, SequenceParallelSpec::METHOD_LASP, 1, DataParallelSpec::METHOD_LEGACY_DDP),
        On(2, SequenceParallelSpec::METHOD_LASP2, 2, DataParallelSpec::METHOD_ZERO1),
        On(4, SequenceParallelSpec::METHOD_ALL_SCAN, 1, DataParallelSpec::METHOD_ZERO2),
        On(2, SequenceParallelSpec::METHOD_ULYSSES, 1, DataParallelSpec::METHOD_ZERO3),
        On(3, SequenceParallelSpec::METHOD_RING_ATTENTION, 1, DataParallelSpec::METHOD_DDP)}) {
    SCOPED_TRACE(Describe(spec));
    ExpectAsOneRank(spec);
  }
}

TEST_F(LinearTransformerTrainingTest, EveryActivationPlanTrainsAsOneRankDoes) {
  lasp::v1::TrainingSpec spec =
      On(2, SequenceParallelSpec::METHOD_LASP, 1, DataParallelSpec::METHOD_DDP);
  for (const auto activations : {MemorySpec::ACTIVATIONS_RECOMPUTE, MemorySpec::ACTIVATIONS_OFFLOAD,
                                 MemorySpec::ACTIVATIONS_STREAM}) {
    spec.mutable_memory()->set_activations(activations);
    spec.mutable_memory()->set_stream_chunk_tokens(
        activations == MemorySpec::ACTIVATIONS_STREAM ? 40 : 0);
    SCOPED_TRACE(Describe(spec));
    ExpectAsOneRank(spec);
  }
}

TEST_F(LinearTransformerTrainingTest, ACheckpointGoesOnToTheBit) {
  lasp::v1::TrainingSpec spec =
      On(2, SequenceParallelSpec::METHOD_LASP, 1, DataParallelSpec::METHOD_ZERO3);
  spec.mutable_checkpoint()->set_interval_steps(4);
  LocalTrainingOptions saving = Options(spec);
  saving.checkpoint_root = root_.path();
  saving.checkpoint_folder = kFolder;
  const Run whole = Train(saving);
  LocalTrainingOptions resuming = saving;
  resuming.generation = 2;
  resuming.dump_directory.clear();
  resuming.restore_from = CommitStep(saving, whole.records, 4);
  EXPECT_EQ(Train(resuming).losses,
            std::vector<double>(whole.losses.begin() + 4, whole.losses.end()));
}

// Minutes: for the nightly run.
TEST_F(LinearTransformerTrainingTest, NightlyEveryMethodOnEveryShape) {
  for (const auto sp : kSequenceParallel) {
    for (const int sp_size : {1, 2, 3, 4}) {
      for (const auto dp : kDataParallel) {
        for (const int dp_size : {1, 2}) {
          lasp::v1::TrainingSpec spec = On(sp_size, sp, dp_size, dp);
          for (const auto activations :
               {MemorySpec::ACTIVATIONS_KEEP, MemorySpec::ACTIVATIONS_RECOMPUTE}) {
            spec.mutable_memory()->set_activations(activations);
            SCOPED_TRACE(Describe(spec));
            ExpectAsOneRank(spec);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace lasp::worker
