#include "proto/spec/spec_defaults.h"

#include <gtest/gtest.h>

#include "tests/proto/spec_fixture.h"

namespace lasp {
namespace {

TEST(SpecDefaultsTest, WritesEveryDefaultOut) {
  v1::TrainingSpec spec;
  FillDefaults(&spec);
  EXPECT_EQ(spec.model().lrpe_theta(), v1::ModelSpec::LRPE_THETA_FIXED);
  EXPECT_EQ(spec.model().layer_pattern(), "L");
  EXPECT_EQ(spec.model().init_std(), 0.02);
  EXPECT_EQ(spec.optimizer().schedule(), v1::OptimizerSpec::SCHEDULE_CONSTANT);
  EXPECT_EQ(spec.optimizer().beta1(), 0.9);
  EXPECT_EQ(spec.optimizer().beta2(), 0.95);
  EXPECT_EQ(spec.optimizer().epsilon(), 1e-8);
  EXPECT_EQ(spec.optimizer().max_gradient_norm(), 1);
  EXPECT_EQ(spec.optimizer().max_skipped_steps(), 10);
  EXPECT_EQ(spec.parallelism().sequence_parallel().method(), v1::SequenceParallelSpec::METHOD_LASP);
  EXPECT_EQ(spec.parallelism().sequence_parallel().size(), 1);
  EXPECT_EQ(spec.parallelism().data_parallel().method(), v1::DataParallelSpec::METHOD_DDP);
  EXPECT_EQ(spec.parallelism().data_parallel().size(), 1);
  EXPECT_EQ(spec.parallelism().data_parallel().shard_group(),
            v1::DataParallelSpec::SHARD_GROUP_WORLD);
  EXPECT_EQ(spec.memory().activations(), v1::MemorySpec::ACTIVATIONS_KEEP);
  EXPECT_EQ(spec.memory().recompute(), v1::MemorySpec::RECOMPUTE_BLOCKS);
  EXPECT_EQ(spec.recovery().max_restarts(), 5);
  EXPECT_EQ(spec.micro_batch_size(), 1);
  EXPECT_TRUE(spec.has_seed());
  EXPECT_EQ(spec.eval_batches(), 8);
  EXPECT_EQ(spec.device(), v1::TrainingSpec::DEVICE_ANY);
}

TEST(SpecDefaultsTest, IsIdempotent) {
  v1::TrainingSpec spec = testing::SoundSpec();
  spec.mutable_optimizer()->set_schedule(v1::OptimizerSpec::SCHEDULE_WSD);
  FillDefaults(&spec);
  v1::TrainingSpec again = spec;
  FillDefaults(&again);
  EXPECT_EQ(again.SerializeAsString(), spec.SerializeAsString());
}

TEST(SpecDefaultsTest, WhatGpusDoNotComputeIsForCpus) {
  v1::TrainingSpec spec = testing::SoundSpec();
  spec.mutable_model()->set_hidden_size(120);
  for (const auto& [heads, device] :
       {std::pair{1, v1::TrainingSpec::DEVICE_ANY}, std::pair{2, v1::TrainingSpec::DEVICE_CPU},
        std::pair{3, v1::TrainingSpec::DEVICE_ANY}}) {
    spec.mutable_model()->set_heads(heads);
    spec.set_device(v1::TrainingSpec::DEVICE_ANY);
    FillDefaults(&spec);
    EXPECT_EQ(spec.device(), device) << heads;
  }
  v1::TrainingSpec linear = spec;
  linear.set_device(v1::TrainingSpec::DEVICE_ANY);
  linear.mutable_model()->set_architecture(v1::ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER);
  FillDefaults(&linear);
  EXPECT_EQ(linear.device(), v1::TrainingSpec::DEVICE_ANY);
  spec.set_device(v1::TrainingSpec::DEVICE_ANY);
  spec.mutable_parallelism()->mutable_sequence_parallel()->set_method(
      v1::SequenceParallelSpec::METHOD_RING_ATTENTION);
  FillDefaults(&spec);
  EXPECT_EQ(spec.device(), v1::TrainingSpec::DEVICE_ANY);
  spec.mutable_model()->set_lrpe_theta(v1::ModelSpec::LRPE_THETA_LEARNED);
  FillDefaults(&spec);
  EXPECT_EQ(spec.device(), v1::TrainingSpec::DEVICE_CPU);
  // With 16 heads; ULYSSES' ranks have half of them.
  linear.mutable_model()->set_hidden_size(128);
  linear.mutable_model()->set_heads(16);
  linear.set_micro_batch_size(4096);
  auto* const sp = linear.mutable_parallelism()->mutable_sequence_parallel();
  sp->set_size(2);
  for (const auto& [method, device] :
       {std::pair{v1::SequenceParallelSpec::METHOD_LASP, v1::TrainingSpec::DEVICE_CPU},
        std::pair{v1::SequenceParallelSpec::METHOD_ULYSSES, v1::TrainingSpec::DEVICE_ANY}}) {
    sp->set_method(method);
    linear.set_device(v1::TrainingSpec::DEVICE_ANY);
    FillDefaults(&linear);
    EXPECT_EQ(linear.device(), device) << method;
  }
}

TEST(SpecDefaultsTest, SoftmaxLayersHaveAsManyHeadsOfKeysOnAnyDevice) {
  v1::TrainingSpec spec = testing::SoundSpec();
  spec.mutable_model()->set_layer_pattern("LLLN");
  FillDefaults(&spec);
  EXPECT_EQ(spec.model().kv_heads(), spec.model().heads());
  EXPECT_EQ(spec.model().rotary_base(), 10000);
  EXPECT_EQ(spec.device(), v1::TrainingSpec::DEVICE_ANY);
  // The pattern's last layer is none of this model.
  v1::TrainingSpec shallow = testing::SoundSpec();
  shallow.mutable_model()->set_layer_pattern("LLLN");
  shallow.mutable_model()->set_layers(3);
  FillDefaults(&shallow);
  EXPECT_EQ(shallow.model().kv_heads(), 0);
  EXPECT_FALSE(shallow.model().has_rotary_base());
}

TEST(SpecDefaultsTest, LeavesWhatIsSetAlone) {
  v1::TrainingSpec spec;
  spec.mutable_optimizer()->set_beta1(0);
  spec.mutable_optimizer()->set_max_gradient_norm(0);
  spec.mutable_optimizer()->set_max_skipped_steps(0);
  spec.mutable_recovery()->set_max_restarts(0);
  spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(-3);
  spec.set_seed(7);
  spec.set_device(v1::TrainingSpec::DEVICE_CPU);
  FillDefaults(&spec);
  EXPECT_EQ(spec.optimizer().beta1(), 0);
  EXPECT_EQ(spec.optimizer().max_gradient_norm(), 0);
  EXPECT_EQ(spec.optimizer().max_skipped_steps(), 0);
  EXPECT_EQ(spec.recovery().max_restarts(), 0);
  EXPECT_EQ(spec.parallelism().sequence_parallel().size(), -3);
  EXPECT_EQ(spec.seed(), 7);
  EXPECT_EQ(spec.device(), v1::TrainingSpec::DEVICE_CPU);
}

TEST(SpecDefaultsTest, WsdDecaysInATenthThatStaysOutOfTheWarmUp) {
  v1::TrainingSpec spec;
  spec.set_max_steps(100);
  spec.mutable_optimizer()->set_schedule(v1::OptimizerSpec::SCHEDULE_WSD);
  v1::TrainingSpec late = spec;
  late.mutable_optimizer()->set_warmup_steps(96);
  FillDefaults(&spec);
  FillDefaults(&late);
  EXPECT_EQ(spec.optimizer().decay_steps(), 10);
  EXPECT_EQ(late.optimizer().decay_steps(), 4);
}

}  // namespace
}  // namespace lasp
