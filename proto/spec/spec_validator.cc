#include "proto/spec/spec_validator.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/spec/document_check.h"
#include "proto/spec/field_checker.h"
#include "proto/spec/gpu_support.h"
#include "proto/spec/model_check.h"
#include "proto/spec/path_check.h"
#include "proto/spec/sequence_parallel_support.h"
#include "proto/spec/softmax_support.h"
#include "proto/spec/spec_limits.h"

namespace lasp {
namespace {

using Bound = FieldChecker::Bound;
using DataParallel = v1::DataParallelSpec;
using Memory = v1::MemorySpec;
using Optimizer = v1::OptimizerSpec;
using SequenceParallel = v1::SequenceParallelSpec;

// Whether each part's own fields are sound; checks over several parts need both.
struct Sound {
  bool model = false;
  bool data = false;
  bool parallelism = false;
  bool batch = false;
  bool steps = false;
};

bool CheckData(const v1::TrainingSpec& spec, FieldChecker* check) {
  const v1::DataSpec& data = spec.data();
  bool sound = true;
  if (data.train_paths().empty()) {
    sound = check->Refuse("spec.data.train_paths", "is empty: name at least one file");
  } else {
    sound = CheckPaths("spec.data.train_paths", data.train_paths(), check);
  }
  if (data.eval_paths().empty() && spec.eval_interval_steps() > 0) {
    sound = check->Refuse(
        "spec.data.eval_paths",
        absl::StrCat("is empty, but eval_interval_steps is ", spec.eval_interval_steps(),
                     ": name held-out files or set eval_interval_steps to 0"));
  } else {
    sound &= CheckPaths("spec.data.eval_paths", data.eval_paths(), check);
  }
  if (data.format() == v1::DataSpec::FORMAT_UNSPECIFIED ||
      !v1::DataSpec::Format_IsValid(data.format())) {
    sound =
        check->Refuse("spec.data.format",
                      absl::StrCat(data.format() == v1::DataSpec::FORMAT_UNSPECIFIED ? "is missing"
                                                                                     : "is unknown",
                                   ": choose BYTES, LLMC, MEGATRON or UINT16"));
  }
  sound &= CheckDocuments(spec, check);
  sound &=
      check->Integer("spec.data.sequence_length", data.sequence_length(), 1, kMaxSequenceLength);
  return sound;
}

// Needs steps in range. Returns whether the warm-up leaves the decay in range to be judged.
void CheckScheduleSteps(const v1::TrainingSpec& spec, FieldChecker* check) {
  const Optimizer& optimizer = spec.optimizer();
  if (optimizer.warmup_steps() > spec.max_steps()) {
    check->Refuse("spec.optimizer.warmup_steps",
                  absl::StrCat("is ", optimizer.warmup_steps(), ", more than max_steps ",
                               spec.max_steps(), ": warm up in fewer steps or train longer"));
  } else if (optimizer.schedule() == Optimizer::SCHEDULE_WSD &&
             optimizer.decay_steps() > spec.max_steps() - optimizer.warmup_steps()) {
    check->Refuse("spec.optimizer.decay_steps",
                  absl::StrCat("is ", optimizer.decay_steps(), ", but only ",
                               spec.max_steps() - optimizer.warmup_steps(),
                               " of max_steps come after the warm-up: decay in fewer"));
  }
}

void CheckOptimizer(const v1::TrainingSpec& spec, bool max_steps_sound, FieldChecker* check) {
  const Optimizer& optimizer = spec.optimizer();
  const bool rate =
      check->Real("spec.optimizer.learning_rate", optimizer.learning_rate(), 0, Bound::kOpen, 100);
  const bool min_rate = check->Real("spec.optimizer.min_learning_rate",
                                    optimizer.min_learning_rate(), 0, Bound::kClosed, 100);
  if (rate && min_rate && optimizer.min_learning_rate() > optimizer.learning_rate()) {
    check->Refuse("spec.optimizer.min_learning_rate",
                  absl::StrCat("is ", optimizer.min_learning_rate(), ", more than learning_rate ",
                               optimizer.learning_rate(), ": choose at most the peak"));
  }
  const bool warmup =
      check->Integer("spec.optimizer.warmup_steps", optimizer.warmup_steps(), 0, kMaxSteps);
  if (optimizer.schedule() == Optimizer::SCHEDULE_UNSPECIFIED ||
      !Optimizer::Schedule_IsValid(optimizer.schedule())) {
    check->Refuse("spec.optimizer.schedule", "is unknown: choose CONSTANT, LINEAR, COSINE or WSD");
  }
  const bool decay =
      check->Integer("spec.optimizer.decay_steps", optimizer.decay_steps(), 0, kMaxSteps);
  if (warmup && decay && max_steps_sound) {
    CheckScheduleSteps(spec, check);
  }
  check->Real("spec.optimizer.weight_decay", optimizer.weight_decay(), 0, Bound::kClosed, 100);
  check->Real("spec.optimizer.beta1", optimizer.beta1(), 0, Bound::kClosed, 1, Bound::kOpen);
  check->Real("spec.optimizer.beta2", optimizer.beta2(), 0, Bound::kClosed, 1, Bound::kOpen);
  check->Real("spec.optimizer.epsilon", optimizer.epsilon(), 0, Bound::kOpen, 1);
  check->Real("spec.optimizer.max_gradient_norm", optimizer.max_gradient_norm(), 0, Bound::kClosed,
              1e30);
  check->Integer("spec.optimizer.max_skipped_steps", optimizer.max_skipped_steps(), 0,
                 kMaxSkippedSteps);
  if (!Optimizer::StateType_IsValid(optimizer.state_type())) {
    check->Refuse("spec.optimizer.state_type", "is unknown: choose FP32 or BF16");
  }
}

// `METHOD_LASP2` without its prefix, or the number of a value nobody knows.
template <typename Method>
std::string MethodName(Method method, const std::string& name) {
  constexpr absl::string_view kPrefix = "METHOD_";
  return name.empty() ? absl::StrCat(static_cast<int>(method)) : name.substr(kPrefix.size());
}

bool CheckParallelism(const v1::ParallelismSpec& parallelism, FieldChecker* check) {
  const SequenceParallel& sp = parallelism.sequence_parallel();
  const DataParallel& dp = parallelism.data_parallel();
  bool methods = true;
  if (!IsAvailable(sp.method())) {
    const std::string name = MethodName(sp.method(), SequenceParallel::Method_Name(sp.method()));
    methods = check->Refuse(
        "spec.parallelism.sequence_parallel.method",
        absl::StrCat(name, " is not available: choose ", kAvailableSequenceParallelMethods));
  }
  const bool sp_size =
      check->Integer("spec.parallelism.sequence_parallel.size", sp.size(), 1, kMaxRanks);
  if (dp.method() == DataParallel::METHOD_UNSPECIFIED ||
      !DataParallel::Method_IsValid(dp.method())) {
    const std::string name = MethodName(dp.method(), DataParallel::Method_Name(dp.method()));
    methods = check->Refuse(
        "spec.parallelism.data_parallel.method",
        absl::StrCat(name, " is not available: choose LEGACY_DDP, DDP, ZERO1, ZERO2 or ZERO3"));
  }
  const bool sharded =
      dp.method() == DataParallel::METHOD_ZERO1 || dp.method() == DataParallel::METHOD_ZERO2 ||
      dp.method() == DataParallel::METHOD_ZERO3 || dp.method() == DataParallel::METHOD_FSDP;
  if (!DataParallel::ShardGroup_IsValid(dp.shard_group())) {
    methods = check->Refuse(
        "spec.parallelism.data_parallel.shard_group",
        absl::StrCat(static_cast<int>(dp.shard_group()), " is not known: choose WORLD or SP"));
  } else if (dp.shard_group() == DataParallel::SHARD_GROUP_SP && !sharded) {
    methods = check->Refuse("spec.parallelism.data_parallel.shard_group",
                            "SP is for methods that shard: choose method ZERO1, ZERO2 or ZERO3");
  } else if (dp.shard_group() == DataParallel::SHARD_GROUP_SP) {
    if (const std::string reason = ReasonAgainstShardGroup(sp.method()); !reason.empty()) {
      methods = check->Refuse("spec.parallelism.data_parallel.shard_group", reason);
    }
  }
  const bool dp_size =
      check->Integer("spec.parallelism.data_parallel.size", dp.size(), 1, kMaxRanks);
  if (!sp_size || !dp_size) {
    return false;
  }
  const int64_t ranks = int64_t{sp.size()} * dp.size();
  if (ranks > kMaxRanks) {
    return check->Refuse("spec.parallelism",
                         absl::StrCat("takes ", sp.size(), " x ", dp.size(), " = ", ranks,
                                      " ranks: at most ", kMaxRanks));
  }
  return methods;
}

// How the sequences of a step divide over ranks. Needs sound parts.
void CheckShapes(const v1::TrainingSpec& spec, const Sound& sound, FieldChecker* check) {
  const int64_t length = spec.data().sequence_length();
  const int64_t sp = spec.parallelism().sequence_parallel().size();
  const int64_t dp = spec.parallelism().data_parallel().size();
  const int64_t micro_batch = spec.micro_batch_size();
  const SequenceParallel& method = spec.parallelism().sequence_parallel();
  if (sound.parallelism && sound.model) {
    if (const std::string reason = ReasonAgainstSize(method, spec.model()); !reason.empty()) {
      check->Refuse("spec.parallelism.sequence_parallel.size", reason);
    }
  }
  bool divides = sound.parallelism && sound.data;
  const bool streams = spec.memory().activations() == Memory::ACTIVATIONS_STREAM;
  const int64_t share = sp * (sound.model ? SliceMultiple(method, spec.model()) : 1);
  if (divides && length % share != 0 && !streams) {
    divides = check->Refuse(
        "spec.data.sequence_length",
        absl::StrCat("is ", length, ", not a multiple of ",
                     share == sp ? absl::StrCat("the SP size ", sp)
                                 : absl::StrCat(share,
                                                ", twice the SP size, as RING_ATTENTION "
                                                "needs it in layers of softmax attention"),
                     ": choose ", std::max(length / share, int64_t{1}) * share, " or ",
                     (length / share + 1) * share));
  }
  if (sound.parallelism && sound.batch && spec.global_batch_size() % (dp * micro_batch) != 0) {
    const int64_t of_a_round = dp * micro_batch;
    check->Refuse("spec.global_batch_size",
                  absl::StrCat("is ", spec.global_batch_size(),
                               ", not a multiple of DP size x micro_batch_size = ", dp, " x ",
                               micro_batch, " = ", of_a_round, ": choose for example ",
                               (spec.global_batch_size() / of_a_round + 1) * of_a_round));
  }
  if (!divides || !sound.batch) {
    return;
  }
  // At a time. For its share of the heads a rank of ULYSSES or MEGATRON_SP has those of all ranks.
  int64_t own_tokens = (length + sp - 1) / sp;
  if (streams) {
    const int64_t chunk = spec.memory().stream_chunk_tokens();
    own_tokens = std::min(own_tokens, chunk > 0 ? chunk : int64_t{1});
  }
  const bool whole = method.method() == SequenceParallel::METHOD_ULYSSES ||
                     method.method() == SequenceParallel::METHOD_MEGATRON_SP;
  const int64_t tokens = whole ? std::min(length, own_tokens * sp) : own_tokens;
  if (tokens > kMaxTokensPerRank / micro_batch) {
    check->Refuse(
        "spec.data.sequence_length",
        absl::StrCat("gives a rank ", tokens, " tokens of ", micro_batch,
                     " sequences at a time: at most ", kMaxTokensPerRank, " in all, ",
                     whole ? "choose LASP" : "raise the SP size", " or lower micro_batch_size"));
    return;
  }
  if (sound.model) {
    const int64_t width = std::max(spec.model().hidden_size(), spec.model().glu_size());
    const int64_t held = own_tokens * micro_batch;
    if (held > kMaxActivationElements / (spec.model().layers() * width)) {
      check->Refuse(
          "spec.data.sequence_length",
          absl::StrCat("gives a rank ", held, " tokens x ", spec.model().layers(),
                       " layers x width ", width, ": more than any rank holds, raise the SP size"));
      return;
    }
  }
  if (sound.steps && spec.max_steps() > kMaxTrainedTokens / length / spec.global_batch_size()) {
    check->Refuse("spec.max_steps", absl::StrCat("is ", spec.max_steps(),
                                                 ", so that the job would train on more than ",
                                                 kMaxTrainedTokens, " tokens: choose fewer steps"));
  }
}

void CheckMemory(const Memory& memory, SequenceParallel::Method method, FieldChecker* check) {
  const bool streams = memory.activations() == Memory::ACTIVATIONS_STREAM;
  if (memory.activations() == Memory::ACTIVATIONS_UNSPECIFIED ||
      !Memory::Activations_IsValid(memory.activations())) {
    check->Refuse("spec.memory.activations",
                  "is unknown: choose KEEP, RECOMPUTE, OFFLOAD or STREAM");
  }
  if (memory.recompute() == Memory::RECOMPUTE_UNSPECIFIED ||
      !Memory::Recompute_IsValid(memory.recompute())) {
    check->Refuse("spec.memory.recompute", "is unknown: choose BLOCKS or SELECTIVE");
  } else if (memory.recompute() == Memory::RECOMPUTE_SELECTIVE &&
             memory.activations() != Memory::ACTIVATIONS_RECOMPUTE) {
    check->Refuse("spec.memory.recompute",
                  "is SELECTIVE: leave it out, or choose spec.memory.activations RECOMPUTE");
  }
  if (memory.stream_chunk_tokens() != 0 && !streams) {
    check->Refuse("spec.memory.stream_chunk_tokens",
                  absl::StrCat("is ", memory.stream_chunk_tokens(),
                               ": leave it out, or choose spec.memory.activations STREAM"));
  } else {
    check->Integer("spec.memory.stream_chunk_tokens", memory.stream_chunk_tokens(), 0,
                   kMaxTokensPerRank);
  }
  if (const std::string reason = ReasonAgainstStreaming(method); streams && !reason.empty()) {
    check->Refuse("spec.memory.activations", reason);
  }
}

void CheckDuration(absl::string_view field, const google::protobuf::Duration& duration,
                   FieldChecker* check) {
  const bool whole = duration.nanos() >= 0 && duration.nanos() < 1'000'000'000;
  if (!whole || duration.seconds() < 1 || duration.seconds() > kMaxDurationSeconds) {
    check->Refuse(field, absl::StrCat("is ", duration.seconds(), " seconds and ", duration.nanos(),
                                      " nanoseconds: choose from 1s to ", kMaxDurationSeconds,
                                      "s, or leave it out for no limit"));
  }
}

void CheckRecovery(const v1::RecoverySpec& recovery, FieldChecker* check) {
  check->Integer("spec.recovery.max_restarts", recovery.max_restarts(), 0, kMaxRestarts);
  check->Integer("spec.recovery.max_failures_without_checkpoint",
                 recovery.max_failures_without_checkpoint(), 0, kMaxRestarts);
  if (!v1::RecoverySpec::BadStep_IsValid(recovery.non_finite()) ||
      recovery.non_finite() == v1::RecoverySpec::BAD_STEP_REPORT) {
    check->Refuse("spec.recovery.non_finite",
                  "is not one of SKIP, ROLL_BACK and HALT: such a step cannot update anything");
  }
  if (!v1::RecoverySpec::BadStep_IsValid(recovery.outlier())) {
    check->Refuse("spec.recovery.outlier", "is not one of REPORT, SKIP, ROLL_BACK and HALT");
  }
  check->Real("spec.recovery.outlier_deviations", recovery.outlier_deviations(), 0,
              FieldChecker::Bound::kClosed, kMaxOutlierDeviations);
}

}  // namespace

std::vector<FieldViolation> ValidateSpec(const v1::TrainingSpec& spec) {
  FieldChecker check;
  Sound sound;
  sound.model = CheckModel(spec.model(), &check);
  sound.data = CheckData(spec, &check);
  sound.steps = spec.max_steps() >= 1 && spec.max_steps() <= kMaxSteps;
  CheckOptimizer(spec, sound.steps, &check);
  sound.parallelism = CheckParallelism(spec.parallelism(), &check);
  CheckMemory(spec.memory(), spec.parallelism().sequence_parallel().method(), &check);
  CheckSoftmaxJob(spec, &check);
  CheckRecovery(spec.recovery(), &check);
  sound.batch =
      check.Integer("spec.global_batch_size", spec.global_batch_size(), 1, kMaxGlobalBatchSize);
  sound.batch &=
      check.Integer("spec.micro_batch_size", spec.micro_batch_size(), 1, kMaxGlobalBatchSize);
  check.Integer("spec.max_steps", spec.max_steps(), 1, kMaxSteps);
  check.Integer("spec.eval_interval_steps", spec.eval_interval_steps(), 0, kMaxSteps);
  check.Integer("spec.eval_batches", spec.eval_batches(), 1, kMaxEvalBatches);
  if (spec.device() == v1::TrainingSpec::DEVICE_UNSPECIFIED ||
      !v1::TrainingSpec::Device_IsValid(spec.device())) {
    check.Refuse("spec.device", "is unknown: choose ANY, CPU or GPU");
  } else if (sound.model && spec.device() == v1::TrainingSpec::DEVICE_GPU) {
    for (const GpuRefusal& refusal : RefusalsByGpus(spec)) {
      check.Refuse(refusal.field, refusal.reason);
    }
  }
  if (spec.has_max_queue_duration()) {
    CheckDuration("spec.max_queue_duration", spec.max_queue_duration(), &check);
  }
  if (spec.has_max_run_duration()) {
    CheckDuration("spec.max_run_duration", spec.max_run_duration(), &check);
  }
  check.Integer("spec.checkpoint.interval_steps", spec.checkpoint().interval_steps(), 0, kMaxSteps);
  if (spec.checkpoint().has_interval()) {
    CheckDuration("spec.checkpoint.interval", spec.checkpoint().interval(), &check);
  }
  CheckShapes(spec, sound, &check);
  if (spec.data().format() == v1::DataSpec::FORMAT_BYTES && spec.model().vocab_size() >= 2 &&
      spec.model().vocab_size() < 256) {
    check.Refuse("spec.model.vocab_size", absl::StrCat("is ", spec.model().vocab_size(),
                                                       ", but format BYTES has 256 tokens: "
                                                       "choose at least 256"));
  }
  return check.Take();
}

}  // namespace lasp
