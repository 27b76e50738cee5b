// The job that the tests of the engine train.
#pragma once

#include <string>

#include "lasp/v1/training_spec.pb.h"

namespace lasp::worker {

// A small TransNormer on bytes. `corpus` is looked up under the path roots.
inline lasp::v1::TrainingSpec SmallSpec(const std::string& corpus) {
  lasp::v1::TrainingSpec spec;
  lasp::v1::ModelSpec& model = *spec.mutable_model();
  model.set_architecture(lasp::v1::ModelSpec::ARCHITECTURE_TRANSNORMER);
  model.set_layers(2);
  model.set_hidden_size(32);
  model.set_heads(2);
  model.set_glu_size(48);
  model.set_vocab_size(256);
  model.set_tie_embeddings(true);
  spec.mutable_data()->add_train_paths(corpus);
  spec.mutable_data()->set_format(lasp::v1::DataSpec::FORMAT_BYTES);
  spec.mutable_data()->set_sequence_length(384);
  lasp::v1::OptimizerSpec& optimizer = *spec.mutable_optimizer();
  optimizer.set_learning_rate(2e-3);
  optimizer.set_warmup_steps(5);
  optimizer.set_schedule(lasp::v1::OptimizerSpec::SCHEDULE_COSINE);
  optimizer.set_weight_decay(0.1);
  spec.set_global_batch_size(4);
  spec.set_max_steps(20);
  spec.set_seed(1);
  return spec;
}

}  // namespace lasp::worker
