// A run whose sequences go by in macro-chunks is the run it would be otherwise.
#include <gtest/gtest.h>

#include <filesystem>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/committed_step.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/dump_reader.h"
#include "tests/worker/engine/local_training.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

class SequenceStreamTrainingTest : public ::testing::Test {
 protected:
  SequenceStreamTrainingTest() {
    folder_.Write("corpus.txt", MakeText(200'000, 5));
    folder_.Write("held_out.txt", MakeText(5'000, 6));
  }

  // Two sequences at a time, twice a step and replica; learned frequencies; evaluations.
  LocalTrainingOptions Options(int sp_size, int dp_size, int64_t chunk_tokens,
                               const std::string& dump) {
    LocalTrainingOptions options;
    options.spec = SmallSpec("corpus.txt");
    options.spec.mutable_model()->set_lrpe_theta(lasp::v1::ModelSpec::LRPE_THETA_LEARNED);
    options.spec.mutable_data()->add_eval_paths("held_out.txt");
    options.spec.set_eval_interval_steps(5);
    options.spec.set_global_batch_size(8);
    options.spec.set_micro_batch_size(2);
    options.spec.set_max_steps(10);
    options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
    options.spec.mutable_parallelism()->mutable_data_parallel()->set_size(dp_size);
    if (chunk_tokens >= 0) {
      options.spec.mutable_memory()->set_activations(lasp::v1::MemorySpec::ACTIVATIONS_STREAM);
      options.spec.mutable_memory()->set_stream_chunk_tokens(chunk_tokens);
    }
    options.path_roots = {folder_.path()};
    options.dump_directory = folder_.Join(dump);
    return options;
  }

  std::vector<LocalTrainingRecord> Train(const LocalTrainingOptions& options) {
    std::vector<LocalTrainingRecord> records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
    }
    return records;
  }

  ::lasp::testing::TempDirectory folder_;
};

TEST_F(SequenceStreamTrainingTest, LossesAndGradientsAreThoseOfTheWhole) {
  const auto kept = Train(Options(1, 1, -1, "kept"));
  const auto expected = ReadDump(folder_.Join("kept") + "/rank-0");

  struct Case {
    int sp_size;
    int dp_size;
    int64_t chunk_tokens;  // sequences have 384
  };

  for (const auto& [sp_size, dp_size, chunk] :
       {Case{1, 1, 50}, Case{2, 2, 64}, Case{3, 1, 127}, Case{2, 1, 0}}) {
    SCOPED_TRACE(absl::StrCat("SP ", sp_size, " DP ", dp_size, ", ", chunk, " tokens at a time"));
    const std::string dump = absl::StrCat("streamed-", sp_size, "-", dp_size);
    const auto streamed = Train(Options(sp_size, dp_size, chunk, dump));
    ASSERT_EQ(Losses(streamed).size(), 10u);
    for (size_t step = 0; step < 10; ++step) {
      const lasp::v1::StepMetrics& metrics = streamed[0].steps[step].metrics();
      const lasp::v1::StepMetrics& wanted = kept[0].steps[step].metrics();
      EXPECT_NEAR(metrics.loss() / wanted.loss(), 1, 1e-5) << step + 1;
      EXPECT_EQ(metrics.has_eval_loss(), wanted.has_eval_loss());
      EXPECT_NEAR(metrics.eval_loss(), wanted.eval_loss(), 1e-5 * wanted.eval_loss());
    }
    for (size_t rank = 0; rank < streamed.size(); ++rank) {
      const auto arrays = ReadDump(absl::StrCat(folder_.Join(dump), "/rank-", rank));
      for (const auto& [name, want] : expected) {
        if (name.rfind("gradient/", 0) == 0) {
          EXPECT_LE(RelativeRms(arrays.at(name), want), 1e-5) << name << " on rank " << rank;
        }
      }
      EXPECT_EQ(streamed[rank].parameters, streamed[0].parameters);
    }
  }
}

TEST_F(SequenceStreamTrainingTest, WithEveryDataParallelismAndWhateverPassesTheStates) {
  using Dp = lasp::v1::DataParallelSpec;
  using Sp = lasp::v1::SequenceParallelSpec;
  LocalTrainingOptions options = Options(1, 1, -1, "unused");
  options.dump_directory.clear();
  const std::vector<double> kept = Losses(Train(options));
  // 384 = 2 * 100 + 100 + 84: the second rank's last slice is short; 3 * 110 + 54: two have none;
  // 2 * 150 + 84: one has none.
  for (const auto& [sp_size, chunk, sp_method, dp_method] :
       {std::tuple{2, 100, Sp::METHOD_ALL_SCAN, Dp::METHOD_DDP},
        std::tuple{3, 110, Sp::METHOD_ALL_SCAN, Dp::METHOD_ZERO1},
        std::tuple{3, 110, Sp::METHOD_LASP, Dp::METHOD_ZERO2},
        std::tuple{3, 110, Sp::METHOD_LASP, Dp::METHOD_ZERO3},
        std::tuple{2, 100, Sp::METHOD_LASP, Dp::METHOD_LEGACY_DDP},
        std::tuple{3, 110, Sp::METHOD_LASP2, Dp::METHOD_ZERO2},
        std::tuple{2, 100, Sp::METHOD_LASP2, Dp::METHOD_DDP},
        std::tuple{2, 150, Sp::METHOD_ULYSSES, Dp::METHOD_ZERO3},
        std::tuple{2, 100, Sp::METHOD_ULYSSES, Dp::METHOD_ZERO1}}) {
    SCOPED_TRACE(absl::StrCat(Sp::Method_Name(sp_method), " with ", Dp::Method_Name(dp_method)));
    options = Options(sp_size, 1, chunk, "unused");
    options.dump_directory.clear();
    lasp::v1::ParallelismSpec& parallelism = *options.spec.mutable_parallelism();
    parallelism.mutable_sequence_parallel()->set_method(sp_method);
    parallelism.mutable_data_parallel()->set_method(dp_method);
    const std::vector<double> losses = Losses(Train(options));
    ASSERT_EQ(losses.size(), kept.size());
    for (size_t step = 0; step < kept.size(); ++step) {
      EXPECT_NEAR(losses[step] / kept[step], 1, 1e-5) << step + 1;
    }
  }
}

TEST_F(SequenceStreamTrainingTest, TwoRunsAreBitEqual) {
  using Sp = lasp::v1::SequenceParallelSpec;
  for (const auto method :
       {Sp::METHOD_LASP, Sp::METHOD_LASP2, Sp::METHOD_ULYSSES, Sp::METHOD_MEGATRON_SP}) {
    SCOPED_TRACE(Sp::Method_Name(method));
    const auto train = [&](const std::string& dump) {
      LocalTrainingOptions options = Options(2, 1, 50, dump);
      options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_method(method);
      return Train(options);
    };
    const auto first = train("first");
    const auto second = train("second");
    EXPECT_EQ(Losses(first), Losses(second));
    EXPECT_EQ(first[1].parameters, second[1].parameters);
  }
}

TEST_F(SequenceStreamTrainingTest, ALengthThatRanksDoNotDivideTrains) {
  LocalTrainingOptions options = Options(3, 1, 50, "odd");
  options.spec.mutable_data()->set_sequence_length(401);
  const auto streamed = Train(options);
  options = Options(1, 1, -1, "odd-kept");
  options.spec.mutable_data()->set_sequence_length(401);
  const auto kept = Train(options);
  for (size_t step = 0; step < 10; ++step) {
    EXPECT_NEAR(Losses(streamed)[step] / Losses(kept)[step], 1, 1e-5) << step + 1;
  }
}

TEST_F(SequenceStreamTrainingTest, CheckpointsOfOnePlanResumeInAnother) {
  constexpr char kFolder[] = "default/uid";
  std::filesystem::create_directories(folder_.Join(kFolder));
  int64_t generation = 1;
  const auto options_of = [&](int64_t chunk_tokens) {
    LocalTrainingOptions options = Options(2, 1, chunk_tokens, "dump");
    options.dump_directory.clear();
    options.spec.mutable_checkpoint()->set_interval_steps(5);
    options.checkpoint_root = folder_.path();
    options.checkpoint_folder = kFolder;
    options.generation = generation++;
    return options;
  };
  for (const bool streams_first : {false, true}) {
    const LocalTrainingOptions options = options_of(streams_first ? 50 : -1);
    const auto whole = Train(options);
    LocalTrainingOptions resuming = options_of(streams_first ? -1 : 50);
    resuming.restore_from = CommitStep(options, whole, 5);
    const std::vector<double> losses = Losses(Train(resuming));
    ASSERT_EQ(losses.size(), 5u);
    for (size_t step = 0; step < losses.size(); ++step) {
      EXPECT_NEAR(losses[step] / Losses(whole)[5 + step], 1, 1e-5) << step + 6;
    }
  }
}

TEST_F(SequenceStreamTrainingTest, AStrategyWithoutStatesIsRefused) {
  class Stateless : public SequenceParallel {
   public:
    AttentionMemory TakeMemory(const AttentionShape&, Arena&) override { return {}; }

    void TakeScratch(const AttentionShape&, Arena&) override {}

    absl::Status BeginForward(const AttentionShape&, const AttentionInputs&,
                              const AttentionMemory&) override {
      return absl::OkStatus();
    }

    absl::Status EndForward(const AttentionShape&, const AttentionInputs&, const AttentionMemory&,
                            Tensor) override {
      return absl::OkStatus();
    }

    absl::Status Backward(const AttentionShape&, const AttentionInputs&, const AttentionMemory&,
                          Tensor, const AttentionGradients&) override {
      return absl::OkStatus();
    }

    absl::Status Finish() override { return absl::OkStatus(); }
  };

  LocalTrainingOptions options = Options(1, 1, 50, "refused");
  options.wrap_attention = [](std::unique_ptr<SequenceParallel>, Backend*) {
    return std::make_unique<Stateless>();
  };
  EXPECT_THAT(TrainLocally(options)[0].status,
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("STREAM")));
}

}  // namespace
}  // namespace lasp::worker
