// One row a violation: what spoils a sound spec, the field that must be named, and words of the
// description. Each row must give exactly that violation.
#include "proto/spec/spec_validator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "tests/proto/spec_fixture.h"

namespace lasp {
namespace {

using ::testing::HasSubstr;

struct Row {
  // Merged into the sound spec in text format.
  std::string change;
  std::string field;
  std::string says;
};

// Text format accumulates repeated fields, so rows about paths clear them first.
v1::TrainingSpec Spoil(const std::string& change, bool clear_paths) {
  v1::TrainingSpec spec = testing::SoundSpec();
  if (clear_paths) {
    spec.mutable_data()->clear_train_paths();
  }
  google::protobuf::TextFormat::Parser parser;
  EXPECT_TRUE(parser.MergeFromString(change, &spec)) << change;
  FillDefaults(&spec);
  return spec;
}

void ExpectOnly(const v1::TrainingSpec& spec, const Row& row) {
  SCOPED_TRACE(row.change);
  const std::vector<FieldViolation> violations = ValidateSpec(spec);
  for (const FieldViolation& violation : violations) {
    SCOPED_TRACE(absl::StrCat(violation.field, " ", violation.description));
    EXPECT_EQ(violation.field, row.field);
  }
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_THAT(violations[0].description, HasSubstr(row.says));
  // How to mend it follows a colon or, in a limit, the words "at most".
  EXPECT_THAT(violations[0].description, ::testing::ContainsRegex(": [a-z]|, [a-z]"));
}

TEST(SpecValidatorTest, ASoundSpecHasNoViolation) {
  EXPECT_TRUE(ValidateSpec(testing::SoundSpecWithDefaults()).empty());
}

TEST(SpecValidatorTest, StreamedSequencesMayHaveAnyLength) {
  v1::TrainingSpec spec = testing::SoundSpecWithDefaults();
  spec.mutable_memory()->set_activations(v1::MemorySpec::ACTIVATIONS_STREAM);
  for (const int64_t length : {int64_t{1}, int64_t{2047}, int64_t{1} << 40}) {
    spec.mutable_data()->set_sequence_length(length);
    EXPECT_TRUE(ValidateSpec(spec).empty()) << length;
  }
}

TEST(SpecValidatorTest, EveryFieldHasItsLimits) {
  const Row rows[] = {
      {"model { architecture: ARCHITECTURE_UNSPECIFIED }", "spec.model.architecture", "missing"},
      {"model { architecture: 77 }", "spec.model.architecture", "unknown"},
      {"model { layers: 0 }", "spec.model.layers", "is 0"},
      {"model { layers: -1 }", "spec.model.layers", "is -1"},
      {"model { layers: 1025 }", "spec.model.layers", "1 to 1024"},
      {"model { layers: 2147483647 }", "spec.model.layers", "1 to 1024"},
      {"model { hidden_size: 0 }", "spec.model.hidden_size", "is 0"},
      {"model { hidden_size: -256 }", "spec.model.hidden_size", "is -256"},
      {"model { hidden_size: 65537 }", "spec.model.hidden_size", "1 to 65536"},
      {"model { heads: 0 }", "spec.model.heads", "is 0"},
      {"model { heads: -4 }", "spec.model.heads", "is -4"},
      {"model { heads: 3 }", "spec.model.heads", "does not divide hidden_size 256"},
      {"model { heads: 512 }", "spec.model.heads", "does not divide hidden_size 256"},
      {"model { hidden_size: 1024 heads: 2 }", "spec.model.heads", "a head is 512 wide"},
      {"model { hidden_size: 1024 heads: 2 }", "spec.model.heads", "at least 4 heads"},
      {"model { glu_size: 0 }", "spec.model.glu_size", "is 0"},
      {"model { glu_size: -1 }", "spec.model.glu_size", "is -1"},
      {"model { glu_size: 1048577 }", "spec.model.glu_size", "1 to 1048576"},
      {"model { vocab_size: 0 }", "spec.model.vocab_size", "is 0"},
      {"model { vocab_size: -256 }", "spec.model.vocab_size", "is -256"},
      {"model { vocab_size: 16777217 }", "spec.model.vocab_size", "2 to 16777216"},
      {"model { vocab_size: 255 }", "spec.model.vocab_size", "BYTES has 256 tokens"},
      {"model { architecture: ARCHITECTURE_LINEAR_TRANSFORMER lrpe_theta: LRPE_THETA_LEARNED }",
       "spec.model.lrpe_theta", "no rotary frequencies"},
      {"model { layer_pattern: 'LLLS' }", "spec.model.layer_pattern", "neither L"},
      {"model { layer_pattern: 'l' }", "spec.model.layer_pattern", "choose for example LLLN"},
      // Of four layers none is the fifth.
      {"model { layer_pattern: 'LLLLN' kv_heads: 2 }", "spec.model.kv_heads", "no layer has"},
      {"model { layer_pattern: 'LLLN' kv_heads: 3 }", "spec.model.kv_heads",
       "does not divide heads 4: choose for example 2"},
      {"model { layer_pattern: 'LLLN' kv_heads: 8 }", "spec.model.kv_heads",
       "choose for example 4"},
      {"model { layer_pattern: 'LLLN' kv_heads: -1 }", "spec.model.kv_heads", "is -1"},
      {"model { layer_pattern: 'N' rotary_base: 1 }", "spec.model.rotary_base", "greater than 1"},
      {"model { layer_pattern: 'N' rotary_base: nan }", "spec.model.rotary_base", "nan"},
      {"model { layer_pattern: 'N' rotary_base: 1e13 }", "spec.model.rotary_base", "to 1e+12"},
      {"model { rotary_base: 10000 }", "spec.model.rotary_base", "leave it out"},
      {"model { layer_pattern: 'LN' hidden_size: 252 }", "spec.model.heads",
       "a head is 63 wide, but rotary positions turn pairs"},
      {"model { layer_pattern: 'NL' lrpe_theta: LRPE_THETA_LEARNED }", "spec.model.lrpe_theta",
       "begin layer_pattern with L"},
      {"model { layer_pattern: 'LN' initial_weights { path: 'model' } }",
       "spec.model.initial_weights", "choose layer_pattern L"},
      {"model { layer_pattern: 'LN' } memory { activations: ACTIVATIONS_STREAM }",
       "spec.memory.activations", "no state of constant size"},
      {"model { layer_pattern: 'N' heads: 2 hidden_size: 40 } device: DEVICE_GPU",
       "spec.model.heads", "GPUs take multiples of 8"},
      {"model { layer_pattern: 'LN' kv_heads: 1 } "
       "parallelism { sequence_parallel { method: METHOD_ULYSSES } }",
       "spec.parallelism.sequence_parallel.size",
       "does not divide the 1 kv_heads that ULYSSES shares out: choose 1"},
      {"model { layer_pattern: 'LN' kv_heads: 2 } "
       "parallelism { sequence_parallel { method: METHOD_MEGATRON_SP size: 4 } }",
       "spec.parallelism.sequence_parallel.size",
       "does not divide the 2 kv_heads that MEGATRON_SP shares out: choose 2, another number of "
       "kv_heads, or LASP"},
      {absl::StrCat("model { layer_pattern: '", std::string(1025, 'L'), "' }"),
       "spec.model.layer_pattern", "1025 layers"},
      {"model { kv_heads: 2 }", "spec.model.kv_heads", "leave it out"},
      {"model { kv_heads: -1 }", "spec.model.kv_heads", "is -1"},
      {"model { lrpe_theta: 9 }", "spec.model.lrpe_theta", "FIXED or LEARNED"},
      {"model { init_std: 0 }", "spec.model.init_std", "greater than 0"},
      {"model { init_std: -0.02 }", "spec.model.init_std", "is -0.02"},
      {"model { init_std: nan }", "spec.model.init_std", "nan"},
      {"model { init_std: inf }", "spec.model.init_std", "inf"},
      {"model { init_std: 11 }", "spec.model.init_std", "to 10"},
      {"model { layers: 1024 hidden_size: 65536 heads: 1024 glu_size: 1048576 }", "spec.model",
       "parameters"},
      {"data { format: FORMAT_UNSPECIFIED }", "spec.data.format", "missing"},
      {"data { format: 42 }", "spec.data.format", "unknown"},
      {"data { sequence_length: 0 }", "spec.data.sequence_length", "is 0"},
      {"data { sequence_length: -2048 }", "spec.data.sequence_length", "is -2048"},
      {"data { sequence_length: 1099511627778 }", "spec.data.sequence_length", "to 1099511627776"},
      {"data { sequence_length: 2047 }", "spec.data.sequence_length",
       "not a multiple of the SP size 2: choose 2046 or 2048"},
      {"data { sequence_length: 1 }", "spec.data.sequence_length", "not a multiple of the SP size"},
      {"model { layer_pattern: 'LN' } data { sequence_length: 2046 } parallelism { "
       "sequence_parallel { method: METHOD_RING_ATTENTION } }",
       "spec.data.sequence_length", "not a multiple of 4, twice the SP size"},
      {"data { sequence_length: 4294967298 }", "spec.data.sequence_length", "raise the SP size"},
      {"data { documents: 9 }", "spec.data.documents", "is unknown: choose JOINED or PACKED"},
      {"data { documents: DOCUMENTS_PACKED }", "spec.data.document_end_token", "is missing"},
      {"data { document_end_token: 10 }", "spec.data.document_end_token",
       "is 10, but documents are JOINED"},
      {"data { documents: DOCUMENTS_PACKED document_end_token: -1 }",
       "spec.data.document_end_token", "is -1"},
      {"data { documents: DOCUMENTS_PACKED document_end_token: 256 } model { vocab_size: 300 }",
       "spec.data.document_end_token", "0 to 255"},
      {"data { documents: DOCUMENTS_PACKED document_end_token: 65536 format: FORMAT_UINT16 } "
       "model { vocab_size: 70000 }",
       "spec.data.document_end_token", "0 to 65535"},
      {"data { documents: DOCUMENTS_PACKED document_end_token: 300 format: FORMAT_LLMC } "
       "model { vocab_size: 300 }",
       "spec.data.document_end_token", "0 to 299"},
      {"data { documents: DOCUMENTS_PACKED document_end_token: 0 format: FORMAT_MEGATRON }",
       "spec.data.document_end_token", "says in its .idx where documents end: leave it out"},
      {"data { documents: DOCUMENTS_PACKED document_end_token: 10 } parallelism { "
       "sequence_parallel { method: METHOD_RING_ATTENTION } }",
       "spec.data.documents",
       "RING_ATTENTION knows no borders between documents in layers of linear attention: choose "
       "LASP"},
      {"model { layer_pattern: 'LN' } data { documents: DOCUMENTS_PACKED document_end_token: 10 } "
       "parallelism { sequence_parallel { method: METHOD_RING_ATTENTION } }",
       "spec.data.documents", "in layers of linear attention"},
      {"parallelism { sequence_parallel { method: METHOD_ULYSSES } } data { sequence_length: "
       "2147483648 }",
       "spec.data.sequence_length", "choose LASP"},
      {"micro_batch_size: 1048576 global_batch_size: 2097152 data { sequence_length: 4096 }",
       "spec.data.sequence_length", "lower micro_batch_size"},
      {"model { layers: 1024 hidden_size: 8192 heads: 64 } data { sequence_length: 4294967292 }",
       "spec.data.sequence_length", "more than any rank holds"},
      {"optimizer { learning_rate: 0 }", "spec.optimizer.learning_rate", "greater than 0"},
      {"optimizer { learning_rate: -0.001 }", "spec.optimizer.learning_rate", "is -0.001"},
      {"optimizer { learning_rate: nan }", "spec.optimizer.learning_rate", "nan"},
      {"optimizer { learning_rate: inf }", "spec.optimizer.learning_rate", "inf"},
      {"optimizer { learning_rate: 101 }", "spec.optimizer.learning_rate", "to 100"},
      {"optimizer { min_learning_rate: -1 }", "spec.optimizer.min_learning_rate", "is -1"},
      {"optimizer { min_learning_rate: nan }", "spec.optimizer.min_learning_rate", "nan"},
      {"optimizer { min_learning_rate: 0.01 }", "spec.optimizer.min_learning_rate",
       "more than learning_rate 0.001"},
      {"optimizer { warmup_steps: -1 }", "spec.optimizer.warmup_steps", "is -1"},
      {"optimizer { warmup_steps: 101 }", "spec.optimizer.warmup_steps", "more than max_steps 100"},
      {"optimizer { warmup_steps: 9223372036854775807 }", "spec.optimizer.warmup_steps", "choose"},
      {"optimizer { schedule: 9 }", "spec.optimizer.schedule", "CONSTANT, LINEAR, COSINE or WSD"},
      {"optimizer { decay_steps: -1 }", "spec.optimizer.decay_steps", "is -1"},
      {"optimizer { schedule: SCHEDULE_WSD decay_steps: 81 }", "spec.optimizer.decay_steps",
       "only 80 of max_steps"},
      {"optimizer { weight_decay: -0.1 }", "spec.optimizer.weight_decay", "is -0.1"},
      {"optimizer { weight_decay: nan }", "spec.optimizer.weight_decay", "nan"},
      {"optimizer { weight_decay: 1000 }", "spec.optimizer.weight_decay", "to 100"},
      {"optimizer { beta1: 1 }", "spec.optimizer.beta1", "less than 1"},
      {"optimizer { beta1: -0.1 }", "spec.optimizer.beta1", "is -0.1"},
      {"optimizer { beta1: nan }", "spec.optimizer.beta1", "nan"},
      {"optimizer { beta2: 1 }", "spec.optimizer.beta2", "less than 1"},
      {"optimizer { beta2: -1 }", "spec.optimizer.beta2", "is -1"},
      {"optimizer { epsilon: 0 }", "spec.optimizer.epsilon", "greater than 0"},
      {"optimizer { epsilon: -1e-8 }", "spec.optimizer.epsilon", "is -1e-08"},
      {"optimizer { epsilon: 2 }", "spec.optimizer.epsilon", "to 1"},
      {"optimizer { max_gradient_norm: -1 }", "spec.optimizer.max_gradient_norm", "is -1"},
      {"optimizer { max_gradient_norm: inf }", "spec.optimizer.max_gradient_norm", "inf"},
      {"optimizer { max_skipped_steps: -1 }", "spec.optimizer.max_skipped_steps", "is -1"},
      {"optimizer { max_skipped_steps: 1000001 }", "spec.optimizer.max_skipped_steps", "1000000"},
      {"optimizer { state_type: 99 }", "spec.optimizer.state_type", "choose FP32 or BF16"},
      {"parallelism { sequence_parallel { method: METHOD_MEGATRON_SP size: 3 } } model { heads: 4 "
       "glu_size: 12 } data { sequence_length: 2046 }",
       "spec.parallelism.sequence_parallel.size",
       "does not divide the 4 heads that MEGATRON_SP shares out: choose 2"},
      {"parallelism { sequence_parallel { method: METHOD_MEGATRON_SP size: 4 } } model { heads: 4 "
       "glu_size: 14 }",
       "spec.parallelism.sequence_parallel.size",
       "does not divide the glu_size 14 that MEGATRON_SP shares out: choose 2, another glu_size"},
      {"parallelism { sequence_parallel { method: METHOD_MEGATRON_SP } data_parallel { method: "
       "METHOD_ZERO1 shard_group: SHARD_GROUP_SP } }",
       "spec.parallelism.data_parallel.shard_group",
       "MEGATRON_SP has shared out the weights already: leave it out"},
      {"device: DEVICE_GPU model { lrpe_theta: LRPE_THETA_LEARNED } "
       "parallelism { sequence_parallel { method: METHOD_RING_ATTENTION } }",
       "spec.parallelism.sequence_parallel.method", "no rotary frequencies on GPUs"},
      {"parallelism { sequence_parallel { method: 99 } }",
       "spec.parallelism.sequence_parallel.method",
       "99 is not available: choose LASP, LASP2, ALL_SCAN, RING_ATTENTION, ULYSSES or MEGATRON_SP"},
      {"parallelism { sequence_parallel { method: METHOD_ULYSSES size: 3 } } model { heads: 4 } "
       "data { sequence_length: 2046 }",
       "spec.parallelism.sequence_parallel.size",
       "does not divide the 4 heads that ULYSSES shares out: choose 2"},
      {"parallelism { sequence_parallel { method: METHOD_ULYSSES size: 8 } } model { heads: 4 }",
       "spec.parallelism.sequence_parallel.size", "choose 4"},
      {"parallelism { sequence_parallel { size: -1 } }", "spec.parallelism.sequence_parallel.size",
       "is -1"},
      {"parallelism { sequence_parallel { size: 4097 } }",
       "spec.parallelism.sequence_parallel.size", "1 to 4096"},
      {"parallelism { data_parallel { method: 99 } }", "spec.parallelism.data_parallel.method",
       "99 is not available: choose LEGACY_DDP, DDP, ZERO1, ZERO2 or ZERO3"},
      {"parallelism { data_parallel { method: METHOD_DDP shard_group: SHARD_GROUP_SP } }",
       "spec.parallelism.data_parallel.shard_group", "choose method ZERO1, ZERO2 or ZERO3"},
      {"parallelism { data_parallel { shard_group: 9 } }",
       "spec.parallelism.data_parallel.shard_group", "9 is not known"},
      {"parallelism { data_parallel { size: -2 } }", "spec.parallelism.data_parallel.size", "-2"},
      {"parallelism { data_parallel { size: 2147483647 } }", "spec.parallelism.data_parallel.size",
       "1 to 4096"},
      {"parallelism { sequence_parallel { size: 128 } data_parallel { size: 64 } }",
       "spec.parallelism", "128 x 64 = 8192 ranks: at most 4096"},
      {"memory { activations: 9 }", "spec.memory.activations", "is unknown: choose KEEP"},
      {"memory { activations: ACTIVATIONS_STREAM } parallelism { sequence_parallel { method: "
       "METHOD_RING_ATTENTION } }",
       "spec.memory.activations",
       "no state to go on from one macro-chunk to the next: choose LASP, LASP2, ALL_SCAN, "
       "ULYSSES or MEGATRON_SP"},
      {"memory { activations: ACTIVATIONS_STREAM stream_chunk_tokens: 1073741824 } "
       "parallelism { sequence_parallel { method: METHOD_ULYSSES } } "
       "data { sequence_length: 1099511627776 }",
       "spec.data.sequence_length", "choose LASP"},
      {"memory { stream_chunk_tokens: 64 }", "spec.memory.stream_chunk_tokens",
       "choose spec.memory.activations STREAM"},
      {"memory { activations: ACTIVATIONS_STREAM stream_chunk_tokens: -1 }",
       "spec.memory.stream_chunk_tokens", "is -1"},
      {"memory { activations: ACTIVATIONS_STREAM stream_chunk_tokens: 2147483648 }",
       "spec.memory.stream_chunk_tokens", "to 2147483647"},
      {"memory { activations: ACTIVATIONS_STREAM stream_chunk_tokens: 1073741824 } "
       "data { sequence_length: 1099511627776 } global_batch_size: 8 micro_batch_size: 4",
       "spec.data.sequence_length", "lower micro_batch_size"},
      {"memory { recompute: 9 }", "spec.memory.recompute", "BLOCKS or SELECTIVE"},
      {"memory { recompute: RECOMPUTE_SELECTIVE }", "spec.memory.recompute",
       "choose spec.memory.activations RECOMPUTE"},
      {"recovery { max_restarts: -1 }", "spec.recovery.max_restarts", "is -1"},
      {"recovery { max_restarts: 1001 }", "spec.recovery.max_restarts", "to 1000"},
      {"max_queue_duration { seconds: 0 }", "spec.max_queue_duration", "from 1s"},
      {"max_queue_duration { seconds: -60 }", "spec.max_queue_duration", "is -60 seconds"},
      {"max_run_duration { nanos: 999999999 }", "spec.max_run_duration", "from 1s"},
      {"max_run_duration { seconds: 1 nanos: -1 }", "spec.max_run_duration", "-1 nanoseconds"},
      {"max_run_duration { seconds: 315360001 }", "spec.max_run_duration", "to 315360000s"},
      {"global_batch_size: 0", "spec.global_batch_size", "is 0"},
      {"global_batch_size: -4", "spec.global_batch_size", "is -4"},
      {"global_batch_size: 9223372036854775807", "spec.global_batch_size", "to 16777216"},
      {"global_batch_size: 3", "spec.global_batch_size",
       "not a multiple of DP size x micro_batch_size = 2 x 1 = 2: choose for example 4"},
      {"micro_batch_size: 4", "spec.global_batch_size", "2 x 4 = 8: choose for example 8"},
      {"micro_batch_size: -1", "spec.micro_batch_size", "is -1"},
      {"micro_batch_size: 2147483647", "spec.micro_batch_size", "to 16777216"},
      {"max_steps: 0", "spec.max_steps", "is 0"},
      {"max_steps: -100", "spec.max_steps", "is -100"},
      {"max_steps: 9223372036854775807", "spec.max_steps", "to 1099511627776"},
      {"max_steps: 1099511627776 data { sequence_length: 1048576 } global_batch_size: 16777216",
       "spec.max_steps", "would train on more than"},
      {"eval_interval_steps: -1", "spec.eval_interval_steps", "is -1"},
      {"eval_interval_steps: 10", "spec.data.eval_paths", "eval_interval_steps is 10"},
      {"eval_batches: -1", "spec.eval_batches", "is -1"},
      {"eval_batches: 1048577", "spec.eval_batches", "to 1048576"},
      {"device: 9", "spec.device", "choose ANY, CPU or GPU"},
      {"device: DEVICE_GPU model { hidden_size: 120 heads: 2 }", "spec.model.heads",
       "a head is 60 wide: GPUs take multiples of 8 up to 128"},
      {"device: DEVICE_GPU model { hidden_size: 512 heads: 2 }", "spec.model.heads", "device CPU"},
      {"device: DEVICE_GPU micro_batch_size: 32768 global_batch_size: 65536",
       "spec.micro_batch_size", "with 4 heads a rank: GPUs take at most 16383 such sequences"},
  };
  for (const Row& row : rows) {
    ExpectOnly(Spoil(row.change, /*clear_paths=*/false), row);
  }
}

TEST(SpecValidatorTest, PathsAreNamesBeneathTheRoots) {
  const std::string too_long(1025, 'a');
  const Row rows[] = {
      {"", "spec.data.train_paths", "name at least one file"},
      {"data { train_paths: '' }", "spec.data.train_paths[0]", "is empty"},
      {"data { train_paths: ['a', 'b', ''] }", "spec.data.train_paths[2]", "is empty"},
      {"data { train_paths: '../etc/passwd' }", "spec.data.train_paths[0]", "holds '..'"},
      {"data { train_paths: '/data/a/../../etc/passwd' }", "spec.data.train_paths[0]", "'..'"},
      {"data { train_paths: 'a/..' }", "spec.data.train_paths[0]", "holds '..'"},
      {"data { train_paths: 'a\\000b' }", "spec.data.train_paths[0]", "NUL"},
      {"data { train_paths: 'a\\nb' }", "spec.data.train_paths[0]", "control character"},
      {absl::StrCat("data { train_paths: '", too_long, "' }"), "spec.data.train_paths[0]",
       "1025 bytes"},
      {"data { train_paths: 'a' eval_paths: ['b', '..'] }", "spec.data.eval_paths[1]", "'..'"},
  };
  for (const Row& row : rows) {
    ExpectOnly(Spoil(row.change, /*clear_paths=*/true), row);
  }
}

TEST(SpecValidatorTest, PathCountsAreBounded) {
  for (const bool eval : {false, true}) {
    v1::TrainingSpec spec = testing::SoundSpecWithDefaults();
    auto* paths = eval ? spec.mutable_data()->mutable_eval_paths()
                       : spec.mutable_data()->mutable_train_paths();
    paths->Clear();
    for (int i = 0; i < 4096; ++i) {
      *paths->Add() = "corpus.txt";
    }
    EXPECT_TRUE(ValidateSpec(spec).empty());
    *paths->Add() = "corpus.txt";
    ExpectOnly(spec, {"", eval ? "spec.data.eval_paths" : "spec.data.train_paths", "4097 entries"});
  }
}

TEST(SpecValidatorTest, DotsInsideANameAreNotParents) {
  v1::TrainingSpec spec = testing::SoundSpecWithDefaults();
  spec.mutable_data()->set_train_paths(0, "a..b/..c/d../.../corpus.txt");
  EXPECT_TRUE(ValidateSpec(spec).empty());
}

TEST(SpecValidatorTest, SoftmaxLayersKeepDocumentsApartOnEveryDevice) {
  v1::TrainingSpec spec = testing::SoundSpec();
  spec.mutable_model()->set_layer_pattern("LN");
  spec.mutable_data()->set_documents(v1::DataSpec::DOCUMENTS_PACKED);
  spec.mutable_data()->set_document_end_token(10);
  FillDefaults(&spec);
  EXPECT_EQ(spec.device(), v1::TrainingSpec::DEVICE_ANY);
  EXPECT_TRUE(ValidateSpec(spec).empty());
  spec.set_device(v1::TrainingSpec::DEVICE_GPU);
  EXPECT_TRUE(ValidateSpec(spec).empty());
}

TEST(SpecValidatorTest, TheBoundsThemselvesAreAllowed) {
  constexpr char kLongest[] =
      "data { sequence_length: 1099511627776 } parallelism { sequence_parallel { size: 4096 } "
      "data_parallel { size: 1 } } model { layers: 1 }";
  constexpr char kLasp2Streams[] =
      "parallelism { sequence_parallel { method: METHOD_LASP2 } } "
      "memory { activations: ACTIVATIONS_STREAM }";
  constexpr char kUlyssesStreams[] =
      "parallelism { sequence_parallel { method: METHOD_ULYSSES } } "
      "memory { activations: ACTIVATIONS_STREAM }";
  constexpr char kMegatronStreams[] =
      "parallelism { sequence_parallel { method: METHOD_MEGATRON_SP } } "
      "memory { activations: ACTIVATIONS_STREAM }";
  constexpr char kMegatronSoftmax[] =
      "model { layer_pattern: 'LLLN' kv_heads: 2 } "
      "parallelism { sequence_parallel { method: METHOD_MEGATRON_SP } }";
  constexpr char kPackedRing[] =
      "data { documents: DOCUMENTS_PACKED document_end_token: 0 } model { layer_pattern: 'N' } "
      "parallelism { sequence_parallel { method: METHOD_RING_ATTENTION } }";
  constexpr char kPackedMegatron[] =
      "data { documents: DOCUMENTS_PACKED document_end_token: 0 } "
      "parallelism { sequence_parallel { method: METHOD_MEGATRON_SP } }";
  constexpr char kPackedStreams[] =
      "data { documents: DOCUMENTS_PACKED document_end_token: 0 } parallelism { "
      "sequence_parallel { method: METHOD_ULYSSES } } memory { activations: ACTIVATIONS_STREAM }";
  const char* changes[] = {
      "model { layers: 1024 }",
      "model { layers: 1 hidden_size: 1 heads: 1 glu_size: 1 }",
      "model { hidden_size: 65536 heads: 256 layers: 1 }",
      "model { vocab_size: 16777216 }",
      "model { init_std: 10 }",
      "parallelism { data_parallel { method: METHOD_LEGACY_DDP } }",
      "parallelism { data_parallel { method: METHOD_ZERO1 } }",
      "parallelism { data_parallel { method: METHOD_ZERO2 } }",
      "parallelism { data_parallel { method: METHOD_ZERO3 } }",
      "parallelism { data_parallel { method: METHOD_FSDP } }",
      "parallelism { data_parallel { method: METHOD_ZERO2 shard_group: SHARD_GROUP_SP } }",
      "model { lrpe_theta: LRPE_THETA_LEARNED }",
      "model { architecture: ARCHITECTURE_LINEAR_TRANSFORMER layer_pattern: 'LL' }",
      "model { architecture: ARCHITECTURE_LINEAR_TRANSFORMER layer_pattern: 'NL' }",
      "model { layer_pattern: 'LLLN' kv_heads: 1 rotary_base: 1e12 }",
      "model { layer_pattern: 'LLLN' } device: DEVICE_GPU",
      "model { layer_pattern: 'LN' lrpe_theta: LRPE_THETA_LEARNED }",
      "parallelism { sequence_parallel { method: METHOD_ULYSSES } } model { layer_pattern: 'LN' }",
      "model { layer_pattern: 'N' } parallelism { sequence_parallel { method: METHOD_LASP2 } }",
      kMegatronSoftmax,
      "data { sequence_length: 2 }",
      kLasp2Streams,
      kUlyssesStreams,
      kMegatronStreams,
      "parallelism { sequence_parallel { method: METHOD_LASP2 } }",
      "parallelism { sequence_parallel { method: METHOD_ALL_SCAN } }",
      "parallelism { sequence_parallel { method: METHOD_ULYSSES } }",
      "parallelism { sequence_parallel { method: METHOD_RING_ATTENTION } }",
      "data { format: FORMAT_UINT16 } model { vocab_size: 2 }",
      "data { documents: DOCUMENTS_PACKED document_end_token: 255 }",
      "data { documents: DOCUMENTS_PACKED format: FORMAT_MEGATRON }",
      "data { documents: DOCUMENTS_PACKED document_end_token: 0 } model { layer_pattern: 'LN' }",
      kPackedRing,
      kPackedMegatron,
      kPackedStreams,
      kLongest,
      "optimizer { warmup_steps: 100 }",
      "optimizer { warmup_steps: 100 schedule: SCHEDULE_WSD }",
      "optimizer { schedule: SCHEDULE_WSD decay_steps: 80 }",
      "optimizer { min_learning_rate: 0.001 schedule: SCHEDULE_COSINE }",
      "optimizer { beta1: 0 beta2: 0 epsilon: 1 max_gradient_norm: 0 max_skipped_steps: 0 }",
      "recovery { max_restarts: 0 }",
      "max_queue_duration { seconds: 1 } max_run_duration { seconds: 315360000 }",
      "seed: -9223372036854775808",
      "micro_batch_size: 2",
      "max_steps: 1 optimizer { warmup_steps: 1 }",
      "data { eval_paths: 'held_out.txt' } eval_interval_steps: 1000 eval_batches: 1",
  };
  for (const char* change : changes) {
    SCOPED_TRACE(change);
    for (const FieldViolation& violation : ValidateSpec(Spoil(change, false))) {
      ADD_FAILURE() << violation.field << " " << violation.description;
    }
  }
}

TEST(SpecValidatorTest, AllViolationsComeAtOnceInTheOrderOfTheFields) {
  const v1::TrainingSpec spec = Spoil(
      "model { layers: 0 heads: 3 } data { format: FORMAT_UNSPECIFIED train_paths: '..' }"
      "optimizer { learning_rate: nan beta2: 2 } parallelism { data_parallel { method: "
      "99 } } max_steps: 0 global_batch_size: 3",
      false);
  std::vector<std::string> fields;
  for (const FieldViolation& violation : ValidateSpec(spec)) {
    fields.push_back(violation.field);
  }
  EXPECT_THAT(fields,
              ::testing::ElementsAre("spec.model.layers", "spec.model.heads",
                                     "spec.data.train_paths[1]", "spec.data.format",
                                     "spec.optimizer.learning_rate", "spec.optimizer.beta2",
                                     "spec.parallelism.data_parallel.method", "spec.max_steps"));
}

TEST(SpecValidatorTest, AnEmptySpecIsRefusedFieldByField) {
  v1::TrainingSpec spec;
  FillDefaults(&spec);
  std::vector<std::string> fields;
  for (const FieldViolation& violation : ValidateSpec(spec)) {
    fields.push_back(violation.field);
  }
  EXPECT_THAT(fields,
              ::testing::ElementsAre(
                  "spec.model.architecture", "spec.model.layers", "spec.model.hidden_size",
                  "spec.model.heads", "spec.model.glu_size", "spec.model.vocab_size",
                  "spec.data.train_paths", "spec.data.format", "spec.data.sequence_length",
                  "spec.optimizer.learning_rate", "spec.global_batch_size", "spec.max_steps"));
}

// Whatever stands in the integer fields, validation ends without overflow (UBSan) and a spec that
// passes has products that fit.
TEST(SpecValidatorTest, ExtremeNumbersNeverOverflow) {
  const int64_t values[] = {std::numeric_limits<int64_t>::min(),
                            -1,
                            0,
                            1,
                            2,
                            4096,
                            1 << 24,
                            std::numeric_limits<int32_t>::max(),
                            int64_t{1} << 40,
                            std::numeric_limits<int64_t>::max()};
  const auto narrow = [](int64_t value) {
    return static_cast<int32_t>(std::clamp<int64_t>(value, std::numeric_limits<int32_t>::min(),
                                                    std::numeric_limits<int32_t>::max()));
  };
  for (const int64_t a : values) {
    for (const int64_t b : values) {
      for (const int64_t c : values) {
        v1::TrainingSpec spec = testing::SoundSpec();
        spec.mutable_model()->set_layers(narrow(a));
        spec.mutable_model()->set_hidden_size(narrow(b));
        spec.mutable_model()->set_heads(narrow(b));
        spec.mutable_model()->set_glu_size(narrow(c));
        spec.mutable_model()->set_vocab_size(narrow(a));
        spec.mutable_data()->set_sequence_length(b);
        spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(narrow(c));
        spec.mutable_parallelism()->mutable_data_parallel()->set_size(narrow(a));
        spec.set_global_batch_size(c);
        spec.set_micro_batch_size(narrow(b));
        spec.set_max_steps(a);
        spec.mutable_optimizer()->set_warmup_steps(b);
        spec.mutable_optimizer()->set_decay_steps(c);
        spec.mutable_optimizer()->set_schedule(v1::OptimizerSpec::SCHEDULE_WSD);
        FillDefaults(&spec);
        if (ValidateSpec(spec).empty()) {
          int64_t product = 0;
          EXPECT_FALSE(__builtin_mul_overflow(spec.max_steps() * spec.global_batch_size(),
                                              spec.data().sequence_length(), &product));
        }
      }
    }
  }
}

}  // namespace
}  // namespace lasp
