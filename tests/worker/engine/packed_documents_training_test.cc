// Jobs whose documents are packed: on any ranks, by any method and from a checkpoint they are the
// training of one rank, and every label of a document counts once.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
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

class PackedDocumentsTrainingTest : public ::testing::Test {
 protected:
  PackedDocumentsTrainingTest() {
    folder_.Write("corpus.txt", MakeText(60'000, 5));
    std::filesystem::create_directories(root_.Join(kFolder));
  }

  // A line is a document: some 50 bytes.
  static lasp::v1::TrainingSpec Spec(bool linear_transformer = false) {
    lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
    lasp::v1::ModelSpec& model = *spec.mutable_model();
    if (linear_transformer) {
      model.set_architecture(lasp::v1::ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER);
    }
    model.set_hidden_size(48);
    model.set_heads(12);
    spec.mutable_data()->set_documents(lasp::v1::DataSpec::DOCUMENTS_PACKED);
    spec.mutable_data()->set_document_end_token('\n');
    spec.mutable_data()->set_sequence_length(276);
    spec.mutable_data()->add_eval_paths("corpus.txt");
    spec.set_eval_interval_steps(3);
    spec.set_eval_batches(2);
    spec.set_global_batch_size(4);
    spec.set_max_steps(6);
    spec.mutable_optimizer()->set_warmup_steps(2);
    return spec;
  }

  static lasp::v1::TrainingSpec On(lasp::v1::TrainingSpec spec, int sp_size,
                                   SequenceParallelSpec::Method sp, int dp_size,
                                   DataParallelSpec::Method dp) {
    lasp::v1::ParallelismSpec& parallelism = *spec.mutable_parallelism();
    parallelism.mutable_sequence_parallel()->set_size(sp_size);
    parallelism.mutable_sequence_parallel()->set_method(sp);
    parallelism.mutable_data_parallel()->set_size(dp_size);
    parallelism.mutable_data_parallel()->set_method(dp);
    return spec;
  }

  struct Run {
    std::string dump;
    std::vector<LocalTrainingRecord> records;

    std::vector<double> losses() const { return Losses(records); }

    std::vector<double> held_out() const {
      std::vector<double> losses;
      for (const auto& step : records[0].steps) {
        if (step.metrics().has_eval_loss()) {
          losses.push_back(step.metrics().eval_loss());
        }
      }
      return losses;
    }
  };

  LocalTrainingOptions Options(const lasp::v1::TrainingSpec& spec) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    options.dump_directory = folder_.Join(absl::StrCat("dump-", dumps_++));
    return options;
  }

  static Run Train(const LocalTrainingOptions& options) {
    Run run{.dump = options.dump_directory, .records = TrainLocally(options)};
    for (const LocalTrainingRecord& record : run.records) {
      LASP_EXPECT_OK(record.status);
    }
    return run;
  }

  // Losses, and each gradient tensor of step 1 on each rank.
  static void ExpectSame(const Run& run, const Run& expected) {
    const std::vector<double> losses = run.losses();
    ASSERT_EQ(losses.size(), expected.losses().size());
    for (size_t step = 0; step < losses.size(); ++step) {
      EXPECT_NEAR(losses[step] / expected.losses()[step], 1, 1e-5) << "step " << step + 1;
    }
    const std::vector<double> held_out = run.held_out();
    ASSERT_EQ(held_out.size(), 2u);
    for (size_t at = 0; at < held_out.size(); ++at) {
      EXPECT_NEAR(held_out[at] / expected.held_out()[at], 1, 1e-5);
    }
    const auto want = ReadDump(expected.dump + "/rank-0");
    for (size_t rank = 0; rank < run.records.size(); ++rank) {
      const auto got = ReadDump(absl::StrCat(run.dump, "/rank-", rank));
      for (const auto& [name, values] : want) {
        if (name.rfind("gradient/", 0) == 0) {
          EXPECT_LE(RelativeRms(got.at(name), values), 1e-5) << name << " rank " << rank;
        }
      }
    }
  }

  static int64_t LabelCount(const Run& run) {
    return nlohmann::json::parse(std::ifstream(run.dump + "/rank-0.json"))["label_count"];
  }

  TempDirectory folder_;
  TempDirectory root_;
  int dumps_ = 0;
};

TEST_F(PackedDocumentsTrainingTest, EveryMethodAndPlanTrainsAsOneRankDoes) {
  for (const bool linear_transformer : {false, true}) {
    const lasp::v1::TrainingSpec spec = Spec(linear_transformer);
    const Run one_rank = Train(Options(spec));
    for (const auto& [shape, activations, chunk] :
         {std::tuple(On(spec, 3, SequenceParallelSpec::METHOD_LASP, 1,
                        DataParallelSpec::METHOD_LEGACY_DDP),
                     MemorySpec::ACTIVATIONS_KEEP, 0),
          std::tuple(
              On(spec, 2, SequenceParallelSpec::METHOD_LASP2, 2, DataParallelSpec::METHOD_ZERO1),
              MemorySpec::ACTIVATIONS_RECOMPUTE, 0),
          std::tuple(
              On(spec, 2, SequenceParallelSpec::METHOD_ALL_SCAN, 1, DataParallelSpec::METHOD_ZERO3),
              MemorySpec::ACTIVATIONS_OFFLOAD, 0),
          std::tuple(
              On(spec, 2, SequenceParallelSpec::METHOD_ULYSSES, 2, DataParallelSpec::METHOD_DDP),
              MemorySpec::ACTIVATIONS_KEEP, 0),
          std::tuple(
              On(spec, 2, SequenceParallelSpec::METHOD_LASP, 1, DataParallelSpec::METHOD_ZERO2),
              MemorySpec::ACTIVATIONS_STREAM, 31),
          std::tuple(
              On(spec, 3, SequenceParallelSpec::METHOD_LASP2, 1, DataParallelSpec::METHOD_DDP),
              MemorySpec::ACTIVATIONS_STREAM, 40),
          std::tuple(On(spec, 2, SequenceParallelSpec::METHOD_MEGATRON_SP, 2,
                        DataParallelSpec::METHOD_DDP),
                     MemorySpec::ACTIVATIONS_KEEP, 0),
          std::tuple(On(spec, 3, SequenceParallelSpec::METHOD_MEGATRON_SP, 1,
                        DataParallelSpec::METHOD_ZERO3),
                     MemorySpec::ACTIVATIONS_STREAM, 40)}) {
      SCOPED_TRACE(absl::StrCat(shape.parallelism().ShortDebugString(), ", activations ",
                                activations, linear_transformer ? ", Linear Transformer" : ""));
      lasp::v1::TrainingSpec kept = shape;
      kept.mutable_memory()->set_activations(activations);
      kept.mutable_memory()->set_stream_chunk_tokens(chunk);
      ExpectSame(Train(Options(kept)), one_rank);
    }
  }
}

TEST_F(PackedDocumentsTrainingTest, SoftmaxLayersTrainAsOnOneRank) {
  for (const auto& [pattern, sp_size, method] :
       {std::tuple("LN", 3, SequenceParallelSpec::METHOD_LASP),
        std::tuple("NL", 2, SequenceParallelSpec::METHOD_ULYSSES),
        std::tuple("N", 3, SequenceParallelSpec::METHOD_RING_ATTENTION),
        std::tuple("LN", 2, SequenceParallelSpec::METHOD_MEGATRON_SP)}) {
    SCOPED_TRACE(pattern);
    lasp::v1::TrainingSpec spec = Spec();
    spec.mutable_model()->set_layer_pattern(pattern);
    spec.mutable_model()->set_kv_heads(6);
    spec.mutable_model()->set_rotary_base(10000);
    ExpectSame(Train(Options(On(spec, sp_size, method, 1, DataParallelSpec::METHOD_DDP))),
               Train(Options(spec)));
  }
}

TEST_F(PackedDocumentsTrainingTest, LabelsOfOtherDocumentsDoNotCount) {
  lasp::v1::TrainingSpec spec = Spec();
  const Run packed = Train(Options(spec));
  spec.mutable_data()->set_documents(lasp::v1::DataSpec::DOCUMENTS_JOINED);
  spec.mutable_data()->clear_document_end_token();
  const Run joined = Train(Options(spec));
  EXPECT_EQ(LabelCount(joined), 4 * 276);
  const std::vector<double> tokens = ReadDump(packed.dump + "/rank-0").at("tokens");
  const int64_t ends = std::count(tokens.begin(), tokens.end(), '\n');
  EXPECT_GT(ends, 0);
  EXPECT_EQ(LabelCount(packed), int64_t{4} * 276 - ends);
  EXPECT_NE(packed.losses(), joined.losses());
}

TEST_F(PackedDocumentsTrainingTest, WithoutABorderItIsTheJoinedTrainingToTheBit) {
  lasp::v1::TrainingSpec spec =
      On(Spec(), 2, SequenceParallelSpec::METHOD_LASP, 2, DataParallelSpec::METHOD_ZERO1);
  spec.mutable_data()->set_document_end_token(7);  // nowhere in the text
  const Run packed = Train(Options(spec));
  spec.mutable_data()->set_documents(lasp::v1::DataSpec::DOCUMENTS_JOINED);
  spec.mutable_data()->clear_document_end_token();
  const Run joined = Train(Options(spec));
  EXPECT_EQ(packed.losses(), joined.losses());
  EXPECT_EQ(packed.held_out(), joined.held_out());
  EXPECT_EQ(packed.records[0].parameters, joined.records[0].parameters);
}

TEST_F(PackedDocumentsTrainingTest, DocumentsOfOneTokenTrainNothing) {
  folder_.Write("ends.txt", std::string(2000, '\n'));
  lasp::v1::TrainingSpec spec = Spec();
  spec.mutable_data()->set_train_paths(0, "ends.txt");
  spec.set_eval_interval_steps(0);
  const Run run = Train(Options(spec));
  EXPECT_EQ(run.losses(), std::vector<double>(6, 0.0));
  EXPECT_EQ(GradientNorms(run.records), std::vector<double>(6, 0.0));
}

TEST_F(PackedDocumentsTrainingTest, ACheckpointGoesOnToTheBit) {
  lasp::v1::TrainingSpec spec =
      On(Spec(), 2, SequenceParallelSpec::METHOD_LASP, 1, DataParallelSpec::METHOD_ZERO3);
  spec.mutable_checkpoint()->set_interval_steps(3);
  LocalTrainingOptions saving = Options(spec);
  saving.checkpoint_root = root_.path();
  saving.checkpoint_folder = kFolder;
  const Run whole = Train(saving);
  LocalTrainingOptions resuming = saving;
  resuming.generation = 2;
  resuming.dump_directory.clear();
  resuming.restore_from = CommitStep(saving, whole.records, 3);
  const std::vector<double> losses = whole.losses();
  EXPECT_EQ(Train(resuming).losses(), std::vector<double>(losses.begin() + 3, losses.end()));
}

}  // namespace
}  // namespace lasp::worker
