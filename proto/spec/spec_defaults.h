// What a field that was left out means. The coordinator stores specs with every default written
// out, so that a later release with other defaults does not change a job that exists.
#pragma once

#include "lasp/v1/training_spec.pb.h"

namespace lasp {

// Writes every default of training_spec.proto into `spec`. Idempotent; leaves alone what is set,
// right or wrong.
void FillDefaults(lasp::v1::TrainingSpec* spec);

}  // namespace lasp
