#include "proto/spec/spec_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/proto/corpus_fixture.h"
#include "tests/proto/spec_fixture.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"

namespace lasp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;

class SpecCheckTest : public ::testing::Test {
 protected:
  SpecCheckTest() { temp_.Write("corpus.txt", std::string(5000, 'x')); }

  absl::Status Check() { return NormalizeAndCheckSpec(&spec_, {temp_.path()}); }

  void SetPaths(const std::vector<std::string>& paths) {
    spec_.mutable_data()->clear_train_paths();
    for (const std::string& path : paths) {
      spec_.mutable_data()->add_train_paths(path);
    }
  }

  static std::vector<std::string> Fields(const absl::Status& status) {
    std::vector<std::string> fields;
    for (const FieldViolation& violation : FieldViolations(status)) {
      fields.push_back(violation.field);
    }
    return fields;
  }

  testing::TempDirectory temp_;
  v1::TrainingSpec spec_ = testing::SoundSpec();
};

TEST_F(SpecCheckTest, ASoundSpecPassesWithItsDefaultsWrittenOut) {
  LASP_EXPECT_OK(Check());
  EXPECT_EQ(spec_.micro_batch_size(), 1);
  EXPECT_EQ(spec_.optimizer().beta2(), 0.95);
}

TEST_F(SpecCheckTest, MissingFilesAreNotFoundByField) {
  SetPaths({"corpus.txt", "none.txt", "nor-this.txt"});
  const absl::Status status = Check();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound, HasSubstr("none.txt")));
  EXPECT_EQ(ErrorReason(status), "INVALID_DATA");
  EXPECT_THAT(Fields(status), ElementsAre("spec.data.train_paths[1]", "spec.data.train_paths[2]"));
}

TEST_F(SpecCheckTest, TruncatedFilesAreDataLoss) {
  temp_.Write("shard.bin",
              testing::LlmcShard16(testing::CountingTokens(3000, 256)).substr(0, 3001));
  SetPaths({"shard.bin"});
  spec_.mutable_data()->set_format(v1::DataSpec::FORMAT_LLMC);
  EXPECT_THAT(Check(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("shard.bin")));
}

TEST_F(SpecCheckTest, PathsOutsideTheRootsAreDenied) {
  SetPaths({"/etc/passwd"});
  EXPECT_THAT(Check(), StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("/etc/passwd")));
}

TEST_F(SpecCheckTest, DifferentTroublesWithFilesAreAnInvalidArgument) {
  SetPaths({"none.txt", "/etc/passwd"});
  const absl::Status status = Check();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("none.txt")));
  EXPECT_EQ(Fields(status).size(), 2u);
}

TEST_F(SpecCheckTest, ACorpusHoldsAtLeastOneSample) {
  temp_.Write("short.txt", std::string(2048, 'x'));
  SetPaths({"short.txt"});
  EXPECT_THAT(Check(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("short.txt holds 2048 tokens, fewer than sequence_length + 1 = "
                                 "2049")));
  temp_.Write("one.txt", "x");
  SetPaths({"short.txt", "one.txt"});
  LASP_EXPECT_OK(Check());
  spec_.mutable_data()->add_eval_paths("one.txt");
  EXPECT_THAT(Fields(Check()), ElementsAre("spec.data.eval_paths"));
}

TEST_F(SpecCheckTest, AWrongVocabularyShowsInTheFirstTokens) {
  temp_.Write("tokens.bin", testing::RawTokens<uint16_t>(testing::CountingTokens(3000, 1000)));
  SetPaths({"tokens.bin"});
  spec_.mutable_data()->set_format(v1::DataSpec::FORMAT_UINT16);
  EXPECT_THAT(Check(), StatusIs(absl::StatusCode::kInvalidArgument,
                                HasSubstr("token 256 is 256, outside the vocabulary of 256")));
  spec_.mutable_model()->set_vocab_size(1000);
  LASP_EXPECT_OK(Check());
}

TEST_F(SpecCheckTest, FieldsFilesAndEarlierViolationsComeTogether) {
  spec_.mutable_model()->set_layers(0);
  SetPaths({"none.txt"});
  const absl::Status status =
      NormalizeAndCheckSpec(&spec_, {temp_.path()}, {{"display_name", "is too long: shorten it"}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(status), "INVALID_SPEC");
  EXPECT_THAT(Fields(status),
              ElementsAre("display_name", "spec.model.layers", "spec.data.train_paths[0]"));
}

TEST_F(SpecCheckTest, FilesAreNotOpenedForAnUnsoundDataSection) {
  SetPaths({"none.txt"});
  spec_.mutable_data()->set_sequence_length(0);
  EXPECT_THAT(Fields(Check()), ElementsAre("spec.data.sequence_length"));
}

}  // namespace
}  // namespace lasp
