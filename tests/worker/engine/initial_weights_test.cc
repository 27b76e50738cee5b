// A run that begins with weights has them in every rank, bit for bit, and nothing else of the past.
#include "proto/interchange/initial_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>

#include "absl/strings/match.h"
#include "kernels/lrpe.h"
#include "proto/interchange/model_folder_writer.h"
#include "proto/spec/spec_defaults.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/local_training.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter_layout.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::lasp::testing::TempDirectory;
using ::testing::HasSubstr;

class InitialWeightsTest : public ::testing::Test {
 protected:
  InitialWeightsTest() { folder_.Write("corpus.txt", MakeText(100'000, 5)); }

  static lasp::v1::TrainingSpec Spec(bool learned, bool tied) {
    lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
    spec.mutable_model()->set_tie_embeddings(tied);
    spec.mutable_model()->set_lrpe_theta(learned ? lasp::v1::ModelSpec::LRPE_THETA_LEARNED
                                                 : lasp::v1::ModelSpec::LRPE_THETA_FIXED);
    spec.set_max_steps(5);
    FillDefaults(&spec);
    return spec;
  }

  // Element i of all parameters is 1 / (i + 3), but for fixed frequencies.
  void Write(const lasp::v1::TrainingSpec& spec) {
    auto writer = ModelFolderWriter::Create(
        {.folder = folder_.Join("model"), .model = spec.model(), .max_file_bytes = 20'000});
    LASP_ASSERT_OK(writer);
    const ParameterLayout layout(ModelConfig::FromSpec(spec.model()));
    for (const Parameter& parameter : layout.parameters()) {
      std::vector<float> values(static_cast<size_t>(parameter.count()));
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = Value(parameter.offset + static_cast<int64_t>(i));
      }
      LASP_ASSERT_OK((*writer)->Add(parameter.name, 0, values));
    }
    LASP_ASSERT_OK((*writer)->Finish());
  }

  static float Value(int64_t element) { return 1.0F / static_cast<float>(element + 3); }

  const TempDirectory folder_;
};

TEST_F(InitialWeightsTest, TheLayoutIsThatOfTheModel) {
  for (const bool learned : {false, true}) {
    for (const bool tied : {false, true}) {
      const lasp::v1::TrainingSpec spec = Spec(learned, tied);
      std::vector<ModelTensor> tensors = ModelTensors(spec.model());
      if (!learned) {
        std::erase_if(tensors, [](const ModelTensor& t) { return t.name == kThetaTensor; });
      }
      const ParameterLayout layout(ModelConfig::FromSpec(spec.model()));
      ASSERT_EQ(tensors.size(), layout.parameters().size());
      for (size_t i = 0; i < tensors.size(); ++i) {
        EXPECT_EQ(tensors[i].name, layout.parameters()[i].name);
        EXPECT_EQ(tensors[i].count(), layout.parameters()[i].count());
      }
      const ModelConfig config = ModelConfig::FromSpec(spec.model());
      std::vector<double> theta(static_cast<size_t>(config.hidden_size));
      kernels::LrpeTheta(config.heads, config.head_size(), theta.data());
      const std::vector<float> fixed = FixedTheta(spec.model());
      for (size_t i = 0; i < theta.size(); ++i) {
        EXPECT_FLOAT_EQ(fixed[i], static_cast<float>(theta[i]));
      }
    }
  }
}

TEST_F(InitialWeightsTest, EveryRankHasThemAndNothingElse) {
  lasp::v1::TrainingSpec spec = Spec(/*learned=*/true, /*tied=*/false);
  Write(spec);
  spec.mutable_model()->mutable_initial_weights()->set_path("model");
  const auto weights = OpenInitialWeights(spec.model(), {folder_.path()});
  LASP_ASSERT_OK(weights);
  for (const auto& [sp, dp] : std::vector<std::pair<int, int>>{{1, 1}, {3, 1}, {2, 2}}) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp);
    options.spec.mutable_parallelism()->mutable_data_parallel()->set_size(dp);
    options.path_roots = {folder_.path()};
    options.initial_weights = &*weights;
    std::atomic<int> looked = 0;
    options.on_tensors = [&](int, int64_t step, const Trainer& trainer, Backend& backend) {
      if (step > 0) {
        return;
      }
      ++looked;
      EXPECT_EQ(trainer.first_step(), 1);
      for (size_t part = 0; part < 3; ++part) {
        std::vector<float> values(static_cast<size_t>(trainer.layout().count()));
        backend.CopyToHost(trainer.tensors()[part], values.data());
        for (size_t i = 0; i < values.size(); ++i) {
          ASSERT_EQ(values[i], part == 0 ? Value(static_cast<int64_t>(i)) : 0.0F) << i;
        }
      }
    };
    for (const LocalTrainingRecord& record : TrainLocally(options)) {
      LASP_EXPECT_OK(record.status);
    }
    EXPECT_EQ(looked, sp * dp);
  }
}

TEST_F(InitialWeightsTest, OneRankThatCannotReadEndsAll) {
  lasp::v1::TrainingSpec spec = Spec(/*learned=*/true, /*tied=*/false);
  Write(spec);
  spec.mutable_model()->mutable_initial_weights()->set_path("model");
  const auto weights = OpenInitialWeights(spec.model(), {folder_.path()});
  LASP_ASSERT_OK(weights);
  std::string first;
  for (const auto& entry : std::filesystem::directory_iterator(folder_.Join("model"))) {
    const std::string name = entry.path().filename().string();
    first = absl::StartsWith(name, "model-00001-of-") ? name : first;
  }
  std::filesystem::resize_file(folder_.Join("model/" + first), 3000);
  LocalTrainingOptions options;
  options.spec = spec;
  options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(3);
  options.path_roots = {folder_.path()};
  options.initial_weights = &*weights;
  const auto records = TrainLocally(options);
  EXPECT_THAT(records[0].status, StatusIs(absl::StatusCode::kDataLoss, HasSubstr(first)));
  EXPECT_THAT(records[2].status, StatusIs(absl::StatusCode::kUnavailable,
                                          HasSubstr("rank 0 could not read the initial weights")));
}

TEST_F(InitialWeightsTest, OthersAreRefused) {
  lasp::v1::TrainingSpec spec = Spec(/*learned=*/true, /*tied=*/false);
  Write(spec);
  spec.mutable_model()->mutable_initial_weights()->set_path("model");
  const std::vector<std::string> roots = {folder_.path()};
  LASP_EXPECT_OK(CheckInitialWeights(spec, roots));
  lasp::v1::TrainingSpec other = spec;
  other.mutable_model()->set_heads(4);
  other.mutable_model()->set_tie_embeddings(true);
  EXPECT_THAT(CheckInitialWeights(other, roots),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("spec.model.heads is 4, but decoder_attention_heads of "
                                 "config.json is 2; spec.model.tie_embeddings is true")));
  other = spec;
  other.mutable_model()->set_lrpe_theta(lasp::v1::ModelSpec::LRPE_THETA_FIXED);
  EXPECT_THAT(CheckInitialWeights(other, roots),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("LEARNED")));
  other.mutable_model()->mutable_initial_weights()->set_path("none");
  const absl::Status status = CheckInitialWeights(other, roots);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound, HasSubstr("none/config.json")));
  ASSERT_EQ(FieldViolations(status).size(), 1U);
  EXPECT_EQ(FieldViolations(status)[0].field, "spec.model.initial_weights.path");
}

}  // namespace
}  // namespace lasp::worker
