// Jobs that train models with layers of softmax attention: on any ranks, by any method, and from a
// checkpoint, they are the training of one rank.
#include <gmock/gmock.h>
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
using ::lasp::v1::SequenceParallelSpec;

constexpr char kFolder[] = "default/uid";
constexpr const char* kPatterns[] = {"LN", "N"};
constexpr auto kMegatron = SequenceParallelSpec::METHOD_MEGATRON_SP;
constexpr SequenceParallelSpec::Method kSequenceParallel[] = {
    SequenceParallelSpec::METHOD_LASP,           SequenceParallelSpec::METHOD_LASP2,
    SequenceParallelSpec::METHOD_ALL_SCAN,       SequenceParallelSpec::METHOD_ULYSSES,
    SequenceParallelSpec::METHOD_RING_ATTENTION, kMegatron};
constexpr DataParallelSpec::Method kDataParallel[] = {
    DataParallelSpec::METHOD_LEGACY_DDP, DataParallelSpec::METHOD_DDP,
    DataParallelSpec::METHOD_ZERO1, DataParallelSpec::METHOD_ZERO2, DataParallelSpec::METHOD_ZERO3};

class SoftmaxLayersTrainingTest : public ::testing::Test {
 protected:
  SoftmaxLayersTrainingTest() {
    folder_.Write("corpus.txt", MakeText(100'000, 5));
    std::filesystem::create_directories(root_.Join(kFolder));
  }

  // Two heads of queries to one of keys, which any of 1 to 4 ranks shares out evenly.
  static lasp::v1::TrainingSpec Spec(const std::string& pattern) {
    lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
    lasp::v1::ModelSpec& model = *spec.mutable_model();
    model.set_layer_pattern(pattern);
    model.set_layers(4);
    model.set_hidden_size(48);
    model.set_heads(24);
    model.set_kv_heads(12);
    model.set_glu_size(24);
    spec.mutable_data()->set_sequence_length(144);
    spec.set_global_batch_size(4);
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
    Run& one_rank = one_rank_[spec.model().layer_pattern()];
    if (one_rank.losses.empty()) {
      one_rank = Train(Options(Spec(spec.model().layer_pattern())));
    }
    const Run run = Train(Options(spec));
    ASSERT_EQ(run.losses.size(), 10u);
    for (size_t step = 0; step < run.losses.size(); ++step) {
      EXPECT_NEAR(run.losses[step] / one_rank.losses[step], 1, 1e-5) << "step " << step + 1;
    }
    const auto want = ReadDump(one_rank.dump + "/rank-0");
    for (size_t rank = 0; rank < run.records.size(); ++rank) {
      const auto got = ReadDump(absl::StrCat(run.dump, "/rank-", rank));
      for (const auto& [name, values] : want) {
        if (name.rfind("gradient/", 0) == 0) {
          EXPECT_LE(RelativeRms(got.at(name), values), 1e-5) << name << " rank " << rank;
        }
      }
    }
  }

  static lasp::v1::TrainingSpec On(const std::string& pattern, int sp_size,
                                   SequenceParallelSpec::Method sp, int dp_size,
                                   DataParallelSpec::Method dp) {
    lasp::v1::TrainingSpec spec = Spec(pattern);
    lasp::v1::ParallelismSpec& parallelism = *spec.mutable_parallelism();
    parallelism.mutable_sequence_parallel()->set_size(sp_size);
    parallelism.mutable_sequence_parallel()->set_method(sp);
    parallelism.mutable_data_parallel()->set_size(dp_size);
    parallelism.mutable_data_parallel()->set_method(dp);
    return spec;
  }

  static std::string Describe(const lasp::v1::TrainingSpec& spec) {
    return spec.model().layer_pattern() + " " + spec.parallelism().ShortDebugString() + " " +
           spec.memory().ShortDebugString();
  }

  // From the checkpoint that a run saves at step 4.
  void ExpectToGoOn(lasp::v1::TrainingSpec spec,
                    const std::vector<lasp::v1::TrainingSpec>& others) {
    spec.mutable_checkpoint()->set_interval_steps(4);
    LocalTrainingOptions saving = Options(spec);
    saving.checkpoint_root = root_.path();
    saving.checkpoint_folder = kFolder;
    const Run whole = Train(saving);
    const auto reference = CommitStep(saving, whole.records, 4);
    const std::vector<double> rest(whole.losses.begin() + 4, whole.losses.end());
    const auto resume = [&](const lasp::v1::TrainingSpec& other) {
      LocalTrainingOptions resuming = Options(other);
      resuming.checkpoint_root = root_.path();
      resuming.generation = 2;
      resuming.dump_directory.clear();
      resuming.restore_from = reference;
      return Train(resuming).losses;
    };
    EXPECT_EQ(resume(spec), rest);
    for (lasp::v1::TrainingSpec other : others) {
      SCOPED_TRACE(Describe(other));
      *other.mutable_checkpoint() = spec.checkpoint();
      const std::vector<double> losses = resume(other);
      ASSERT_EQ(losses.size(), rest.size());
      for (size_t step = 0; step < rest.size(); ++step) {
        EXPECT_NEAR(losses[step] / rest[step], 1, 1e-5) << "step " << step + 5;
      }
    }
  }

  TempDirectory folder_;
  TempDirectory root_;
  int dumps_ = 0;
  std::map<std::string, Run> one_rank_;  // by pattern
};

TEST_F(SoftmaxLayersTrainingTest, EveryMethodTrainsAsOneRankDoes) {
  for (const std::string pattern : kPatterns) {
    for (const lasp::v1::TrainingSpec& spec :
         {On(pattern, 3, SequenceParallelSpec::METHOD_LASP, 1, DataParallelSpec::METHOD_LEGACY_DDP),
          On(pattern, 2, SequenceParallelSpec::METHOD_LASP2, 2, DataParallelSpec::METHOD_ZERO3),
          On(pattern, 4, SequenceParallelSpec::METHOD_ALL_SCAN, 1, DataParallelSpec::METHOD_ZERO2),
          On(pattern, 2, SequenceParallelSpec::METHOD_ULYSSES, 1, DataParallelSpec::METHOD_ZERO3),
          On(pattern, 3, SequenceParallelSpec::METHOD_RING_ATTENTION, 1,
             DataParallelSpec::METHOD_DDP)}) {
      SCOPED_TRACE(Describe(spec));
      ExpectAsOneRank(spec);
    }
  }
}

// Its ranks have shares of the weights, of queries other than of keys and values.
TEST_F(SoftmaxLayersTrainingTest, MegatronSpTrainsAsOneRankDoes) {
  for (const lasp::v1::TrainingSpec& spec :
       {On("LLLN", 2, kMegatron, 2, DataParallelSpec::METHOD_ZERO3),
        On("LLLN", 3, kMegatron, 1, DataParallelSpec::METHOD_DDP),
        On("LLLN", 4, kMegatron, 1, DataParallelSpec::METHOD_DDP),
        On("N", 3, kMegatron, 1, DataParallelSpec::METHOD_ZERO1)}) {
    SCOPED_TRACE(Describe(spec));
    ExpectAsOneRank(spec);
  }
}

TEST_F(SoftmaxLayersTrainingTest, RanksThatDoNotDivideTheHeadsOfKeysAreRefused) {
  for (const auto method : {SequenceParallelSpec::METHOD_ULYSSES, kMegatron}) {
    lasp::v1::TrainingSpec spec = On("LN", 4, method, 1, DataParallelSpec::METHOD_DDP);
    spec.mutable_model()->set_kv_heads(6);
    for (const LocalTrainingRecord& record : TrainLocally(Options(spec))) {
      EXPECT_THAT(record.status, ::lasp::testing::StatusIs(
                                     absl::StatusCode::kInvalidArgument,
                                     ::testing::HasSubstr("is 4, which does not divide the 6 "
                                                          "kv_heads")));
    }
  }
}

TEST_F(SoftmaxLayersTrainingTest, EveryActivationPlanTrainsAsOneRankDoes) {
  for (const auto method : {SequenceParallelSpec::METHOD_LASP, kMegatron}) {
    lasp::v1::TrainingSpec spec = On("LN", 2, method, 1, DataParallelSpec::METHOD_DDP);
    for (const auto& [activations, recompute] :
         {std::pair(MemorySpec::ACTIVATIONS_RECOMPUTE, MemorySpec::RECOMPUTE_BLOCKS),
          std::pair(MemorySpec::ACTIVATIONS_RECOMPUTE, MemorySpec::RECOMPUTE_SELECTIVE),
          std::pair(MemorySpec::ACTIVATIONS_OFFLOAD, MemorySpec::RECOMPUTE_BLOCKS)}) {
      spec.mutable_memory()->set_activations(activations);
      spec.mutable_memory()->set_recompute(recompute);
      SCOPED_TRACE(Describe(spec));
      ExpectAsOneRank(spec);
    }
  }
}

// On the same ranks to the bit, on others, by another method, as the whole run does.
TEST_F(SoftmaxLayersTrainingTest, ACheckpointGoesOnByEveryMethod) {
  ExpectToGoOn(
      On("LN", 2, SequenceParallelSpec::METHOD_LASP, 1, DataParallelSpec::METHOD_ZERO3),
      {On("LN", 3, SequenceParallelSpec::METHOD_RING_ATTENTION, 1, DataParallelSpec::METHOD_DDP),
       On("LN", 4, SequenceParallelSpec::METHOD_ULYSSES, 1, DataParallelSpec::METHOD_ZERO1),
       On("LN", 3, kMegatron, 1, DataParallelSpec::METHOD_ZERO1)});
}

TEST_F(SoftmaxLayersTrainingTest, ACheckpointOfSharesOfHeadsGoesOnByEveryMethod) {
  ExpectToGoOn(On("LN", 2, kMegatron, 1, DataParallelSpec::METHOD_DDP),
               {Spec("LN"), On("LN", 4, kMegatron, 1, DataParallelSpec::METHOD_ZERO3)});
}

// Minutes: for the nightly run.
TEST_F(SoftmaxLayersTrainingTest, NightlyEveryMethodOnEveryShape) {
  for (const std::string pattern : kPatterns) {
    for (const auto sp : kSequenceParallel) {
      for (const int sp_size : {1, 2, 3, 4}) {
        for (const auto dp : kDataParallel) {
          for (const int dp_size : {1, 2}) {
            lasp::v1::TrainingSpec spec = On(pattern, sp_size, sp, dp_size, dp);
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
}

}  // namespace
}  // namespace lasp::worker
