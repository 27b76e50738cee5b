#include "proto/spec/spec_defaults.h"

#include <algorithm>

#include "proto/spec/gpu_support.h"
#include "proto/spec/softmax_support.h"

namespace lasp {
namespace {

void FillModel(v1::ModelSpec* model) {
  if (model->lrpe_theta() == v1::ModelSpec::LRPE_THETA_UNSPECIFIED) {
    model->set_lrpe_theta(v1::ModelSpec::LRPE_THETA_FIXED);
  }
  if (!model->has_init_std()) {
    model->set_init_std(0.02);
  }
  if (model->layer_pattern().empty()) {
    model->set_layer_pattern("L");
  }
  if (SoftmaxLayers(*model) > 0) {
    if (model->kv_heads() == 0) {
      model->set_kv_heads(model->heads());
    }
    if (!model->has_rotary_base()) {
      model->set_rotary_base(10000);
    }
  }
}

void FillOptimizer(int64_t max_steps, v1::OptimizerSpec* optimizer) {
  if (optimizer->schedule() == v1::OptimizerSpec::SCHEDULE_UNSPECIFIED) {
    optimizer->set_schedule(v1::OptimizerSpec::SCHEDULE_CONSTANT);
  }
  if (optimizer->schedule() == v1::OptimizerSpec::SCHEDULE_WSD && optimizer->decay_steps() == 0) {
    // A tenth, but never into the warm-up.
    const int64_t room = max_steps - std::clamp<int64_t>(optimizer->warmup_steps(), 0, max_steps);
    optimizer->set_decay_steps(std::min(room, max_steps / 10 + (max_steps % 10 == 0 ? 0 : 1)));
  }
  if (!optimizer->has_beta1()) {
    optimizer->set_beta1(0.9);
  }
  if (!optimizer->has_beta2()) {
    optimizer->set_beta2(0.95);
  }
  if (!optimizer->has_epsilon()) {
    optimizer->set_epsilon(1e-8);
  }
  if (!optimizer->has_max_gradient_norm()) {
    optimizer->set_max_gradient_norm(1);
  }
  if (!optimizer->has_max_skipped_steps()) {
    optimizer->set_max_skipped_steps(10);
  }
  if (optimizer->state_type() == v1::OptimizerSpec::STATE_TYPE_UNSPECIFIED) {
    optimizer->set_state_type(v1::OptimizerSpec::STATE_TYPE_FP32);
  }
}

void FillParallelism(v1::ParallelismSpec* parallelism) {
  auto* sp = parallelism->mutable_sequence_parallel();
  if (sp->method() == v1::SequenceParallelSpec::METHOD_UNSPECIFIED) {
    sp->set_method(v1::SequenceParallelSpec::METHOD_LASP);
  }
  if (sp->size() == 0) {
    sp->set_size(1);
  }
  auto* dp = parallelism->mutable_data_parallel();
  if (dp->method() == v1::DataParallelSpec::METHOD_UNSPECIFIED) {
    dp->set_method(v1::DataParallelSpec::METHOD_DDP);
  }
  if (dp->shard_group() == v1::DataParallelSpec::SHARD_GROUP_UNSPECIFIED) {
    dp->set_shard_group(v1::DataParallelSpec::SHARD_GROUP_WORLD);
  }
  if (dp->size() == 0) {
    dp->set_size(1);
  }
}

void FillMemory(v1::MemorySpec* memory) {
  if (memory->activations() == v1::MemorySpec::ACTIVATIONS_UNSPECIFIED) {
    memory->set_activations(v1::MemorySpec::ACTIVATIONS_KEEP);
  }
  if (memory->recompute() == v1::MemorySpec::RECOMPUTE_UNSPECIFIED) {
    memory->set_recompute(v1::MemorySpec::RECOMPUTE_BLOCKS);
  }
}

void FillRecovery(v1::RecoverySpec* recovery) {
  if (!recovery->has_max_restarts()) {
    recovery->set_max_restarts(5);
  }
  if (!recovery->has_max_failures_without_checkpoint()) {
    recovery->set_max_failures_without_checkpoint(3);
  }
  if (recovery->non_finite() == v1::RecoverySpec::BAD_STEP_UNSPECIFIED) {
    recovery->set_non_finite(v1::RecoverySpec::BAD_STEP_SKIP);
  }
  if (recovery->outlier() == v1::RecoverySpec::BAD_STEP_UNSPECIFIED) {
    recovery->set_outlier(v1::RecoverySpec::BAD_STEP_REPORT);
  }
  if (!recovery->has_outlier_deviations()) {
    recovery->set_outlier_deviations(6);
  }
}

}  // namespace

void FillDefaults(v1::TrainingSpec* spec) {
  FillModel(spec->mutable_model());
  if (spec->data().documents() == v1::DataSpec::DOCUMENTS_UNSPECIFIED) {
    spec->mutable_data()->set_documents(v1::DataSpec::DOCUMENTS_JOINED);
  }
  FillOptimizer(std::max<int64_t>(spec->max_steps(), 0), spec->mutable_optimizer());
  FillParallelism(spec->mutable_parallelism());
  FillMemory(spec->mutable_memory());
  FillRecovery(spec->mutable_recovery());
  if (spec->mutable_checkpoint()->interval_steps() == 0 && !spec->checkpoint().has_interval()) {
    spec->mutable_checkpoint()->mutable_interval()->set_seconds(600);
  }
  if (spec->micro_batch_size() == 0) {
    spec->set_micro_batch_size(1);
  }
  if (!spec->has_seed()) {
    spec->set_seed(0);
  }
  if (spec->eval_batches() == 0) {
    spec->set_eval_batches(8);
  }
  if (spec->device() == v1::TrainingSpec::DEVICE_UNSPECIFIED ||
      spec->device() == v1::TrainingSpec::DEVICE_ANY) {
    spec->set_device(RefusalsByGpus(*spec).empty() ? v1::TrainingSpec::DEVICE_ANY
                                                   : v1::TrainingSpec::DEVICE_CPU);
  }
}

}  // namespace lasp
