// Job files and --set.
#include "client/job_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "proto/rpc/error_details.h"
#include "tests/support/temp_directory.h"

namespace lasp::client {
namespace {

using lasp::v1::TrainingJob;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kJob[] = R"(# the quick start
display_name: quickstart
labels: {team: nlp}
spec:
  model: {architecture: TRANSNORMER, layers: 4, hidden_size: 256, heads: 4, glu_size: 704, vocab_size: 256, tie_embeddings: true}
  data: {train_paths: [corpus.txt], format: BYTES, sequence_length: 2048}   # a multiple of the SP size
  optimizer: {learning_rate: 1.0e-3, schedule: COSINE, beta1: 0.9}
  parallelism:
    sequence_parallel: {method: LASP, size: 2}
    data_parallel: {method: DDP, size: 2}
  global_batch_size: 4
  max_steps: 100
  seed: 1
)";

TrainingJob Job() { return ParseJobFile(kJob)->job; }

std::string SettingError(const std::string& setting) {
  TrainingJob job = Job();
  return std::string(ApplySetting(setting, &job).message());
}

TEST(JobFile, IsReadWithItsLines) {
  const auto file = ParseJobFile(kJob);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto& spec = file->job.spec();
  EXPECT_EQ(file->job.display_name(), "quickstart");
  EXPECT_EQ(file->job.labels().at("team"), "nlp");
  EXPECT_EQ(spec.model().architecture(), lasp::v1::ModelSpec::ARCHITECTURE_TRANSNORMER);
  EXPECT_TRUE(spec.model().tie_embeddings());
  EXPECT_EQ(spec.data().train_paths(0), "corpus.txt");
  EXPECT_DOUBLE_EQ(spec.optimizer().learning_rate(), 1e-3);
  EXPECT_EQ(spec.parallelism().data_parallel().size(), 2);
  EXPECT_EQ(spec.seed(), 1);
  EXPECT_FALSE(spec.optimizer().has_beta2());
  EXPECT_EQ(file->lines.at("spec.data.sequence_length"), 6);
  EXPECT_EQ(file->lines.at("spec.data.train_paths[0]"), 6);
  EXPECT_EQ(file->lines.at("spec.max_steps"), 12);
}

TEST(JobFile, MayBeJson) {
  const auto file = ParseJobFile(R"({"spec": {"max_steps": 5, "data": {"train_paths": ["a"]}}})");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->job.spec().max_steps(), 5);
}

TEST(JobFile, SaysHowManyCheckpointsAreKept) {
  const auto file = ParseJobFile(
      "checkpoint_retention: {keep_last: 5, keep_every_steps: 100}\nspec: {max_steps: 5}\n");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->job.checkpoint_retention().keep_last(), 5);
  EXPECT_EQ(file->job.checkpoint_retention().keep_every_steps(), 100);
  TrainingJob job = file->job;
  ASSERT_TRUE(ApplySetting("checkpoint_retention.keep_last=7", &job).ok());
  EXPECT_EQ(job.checkpoint_retention().keep_last(), 7);
}

TEST(JobFile, EveryMistakeIsNamedAtOnce) {
  const auto file = ParseJobFile(
      "state: RUNNING\nmax_steps: 3\nname: x\nspec:\n  max_step: 1\n  seed: x\nlabel: {}\n");
  const auto violations = FieldViolations(file.status());
  std::vector<std::string> texts;
  texts.reserve(violations.size());
  for (const auto& violation : violations) {
    texts.push_back(violation.field + ": " + violation.description);
  }
  EXPECT_THAT(
      texts, ElementsAre("state: is set by the coordinator: leave it out (line 1)",
                         "max_steps: unknown field; it belongs under spec: spec.max_steps (line 2)",
                         "name: is chosen with --id, not in the file (line 3)",
                         "label: unknown field; did you mean 'labels'? (line 7)",
                         "spec.max_step: unknown field; did you mean 'max_steps'? (line 5)",
                         "spec.seed: expected a whole number, got 'x' (line 6)"));
}

TEST(JobFile, WhatIsNoMapIsRefused) {
  EXPECT_THAT(std::string(ParseJobFile("").status().message()), HasSubstr("empty"));
  EXPECT_THAT(std::string(ParseJobFile("# only a comment\n").status().message()),
              HasSubstr("empty"));
  EXPECT_THAT(std::string(ParseJobFile("[a]").status().message()), HasSubstr("got a list"));
  EXPECT_THAT(std::string(ParseJobFile("hello").status().message()), HasSubstr("got 'hello'"));
}

TEST(JobFile, TextComesFromFilesOnly) {
  const lasp::testing::TempDirectory directory;
  const std::string& folder = directory.path();
  EXPECT_TRUE(absl::IsInvalidArgument(ReadJobText(folder).status()));
  EXPECT_TRUE(absl::IsNotFound(ReadJobText(folder + "/no-such-file").status()));
  const std::string large = directory.Write("large.yaml", std::string((1 << 20) + 1, '#'));
  EXPECT_THAT(std::string(ReadJobText(large).status().message()), HasSubstr("larger than 1 MiB"));
}

TEST(Set, ReplacesScalarsListsAndMessages) {
  TrainingJob job = Job();
  ASSERT_TRUE(ApplySetting("spec.max_steps=500", &job).ok());
  ASSERT_TRUE(ApplySetting("spec.data.train_paths=[a.txt, b=c.txt]", &job).ok());
  ASSERT_TRUE(ApplySetting("spec.optimizer.schedule=WSD", &job).ok());
  ASSERT_TRUE(ApplySetting("spec.parallelism.data_parallel={size: 7}", &job).ok());
  ASSERT_TRUE(ApplySetting("display_name=a: b", &job).ok() == false);
  ASSERT_TRUE(ApplySetting("display_name='a: b'", &job).ok());
  ASSERT_TRUE(ApplySetting("labels.run=7", &job).ok());
  ASSERT_TRUE(ApplySetting("spec.eval_interval_steps=", &job).ok());
  EXPECT_THAT(std::string(ApplySetting("spec.device=TPU", &job).message()),
              HasSubstr("ANY, CPU, GPU"));
  ASSERT_TRUE(ApplySetting("spec.device=GPU", &job).ok());
  EXPECT_EQ(job.spec().max_steps(), 500);
  EXPECT_EQ(job.spec().device(), lasp::v1::TrainingSpec::DEVICE_GPU);
  EXPECT_THAT(job.spec().data().train_paths(), ElementsAre("a.txt", "b=c.txt"));
  EXPECT_EQ(job.spec().optimizer().schedule(), lasp::v1::OptimizerSpec::SCHEDULE_WSD);
  EXPECT_EQ(job.spec().parallelism().data_parallel().size(), 7);
  EXPECT_EQ(job.spec().parallelism().data_parallel().method(),
            lasp::v1::DataParallelSpec::METHOD_UNSPECIFIED);
  EXPECT_EQ(job.spec().parallelism().sequence_parallel().size(), 2);
  EXPECT_EQ(job.display_name(), "a: b");
  EXPECT_EQ(job.labels().at("run"), "7");
  EXPECT_EQ(job.labels().at("team"), "nlp");
}

TEST(Set, NullUnsets) {
  TrainingJob job = Job();
  ASSERT_TRUE(ApplySetting("spec.seed=null", &job).ok());
  ASSERT_TRUE(ApplySetting("labels.team=~", &job).ok());
  EXPECT_FALSE(job.spec().has_seed());
  EXPECT_TRUE(job.labels().empty());
  ASSERT_TRUE(ApplySetting("labels={a: b}", &job).ok());
  EXPECT_EQ(job.labels().size(), 1U);
}

TEST(Set, ErrorsNameThePath) {
  EXPECT_THAT(SettingError("spec.max_steps"), HasSubstr("expected PATH=VALUE"));
  EXPECT_THAT(SettingError("=3"), HasSubstr("expected PATH=VALUE"));
  EXPECT_THAT(SettingError("spec.max_step=3"),
              HasSubstr("--set spec.max_step: 'max_step' is no field of TrainingSpec; did you mean "
                        "'max_steps'?"));
  EXPECT_THAT(SettingError("spec.modle.heads=3"), HasSubstr("did you mean 'model'?"));
  EXPECT_THAT(SettingError("spec.max_steps=ten"),
              HasSubstr("--set spec.max_steps: expected a whole number, got 'ten'"));
  EXPECT_THAT(SettingError("spec.data.train_paths=a.txt"),
              HasSubstr("expected a list, got 'a.txt'"));
  EXPECT_THAT(SettingError("spec.data.train_paths.0=a.txt"),
              HasSubstr("give it whole: --set spec.data.train_paths=VALUE"));
  EXPECT_THAT(SettingError("spec.model={head: 3}"),
              HasSubstr("--set spec.model.head: unknown field; did you mean"));
  EXPECT_THAT(SettingError("spec.model=[3"), HasSubstr("the value is not YAML"));
  EXPECT_THAT(SettingError("state=RUNNING"), HasSubstr("is set by the coordinator"));
  EXPECT_THAT(SettingError("start_from=x"), HasSubstr("--from"));
  EXPECT_THAT(SettingError("max_steps=3"), HasSubstr("spec.max_steps"));
  EXPECT_THAT(SettingError("labels.a=[1]"), HasSubstr("expected a text, got a list"));
}

}  // namespace
}  // namespace lasp::client
