// A spec that is right in every field, for tests to spoil.
#pragma once

#include "lasp/v1/training_spec.pb.h"
#include "proto/spec/spec_defaults.h"

namespace lasp::testing {

// SP 2 x DP 2 over bytes of corpus.txt, defaults not yet written out.
inline v1::TrainingSpec SoundSpec() {
  v1::TrainingSpec spec;
  auto* model = spec.mutable_model();
  model->set_architecture(v1::ModelSpec::ARCHITECTURE_TRANSNORMER);
  model->set_layers(4);
  model->set_hidden_size(256);
  model->set_heads(4);
  model->set_glu_size(704);
  model->set_vocab_size(256);
  spec.mutable_data()->add_train_paths("corpus.txt");
  spec.mutable_data()->set_format(v1::DataSpec::FORMAT_BYTES);
  spec.mutable_data()->set_sequence_length(2048);
  spec.mutable_optimizer()->set_learning_rate(1e-3);
  spec.mutable_optimizer()->set_warmup_steps(20);
  spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(2);
  spec.mutable_parallelism()->mutable_data_parallel()->set_size(2);
  spec.set_global_batch_size(4);
  spec.set_max_steps(100);
  return spec;
}

inline v1::TrainingSpec SoundSpecWithDefaults() {
  v1::TrainingSpec spec = SoundSpec();
  FillDefaults(&spec);
  return spec;
}

}  // namespace lasp::testing
