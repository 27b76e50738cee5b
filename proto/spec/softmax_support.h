// Which jobs have layers of softmax attention, and what those ask of the rest of a job.
#pragma once

#include <cstdint>

#include "lasp/v1/training_spec.pb.h"
#include "proto/spec/field_checker.h"

namespace lasp {

// How many layers of the model have softmax attention, by layer_pattern, whose letters need not be
// sound.
int64_t SoftmaxLayers(const v1::ModelSpec& model);

// layer_pattern and what only softmax attention has; heads and hidden_size need not be sound.
bool CheckLayerPattern(const v1::ModelSpec& model, FieldChecker* check);

// What the rest of a job cannot be where there are such layers.
void CheckSoftmaxJob(const v1::TrainingSpec& spec, FieldChecker* check);

}  // namespace lasp
