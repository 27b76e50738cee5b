// What a spec may say of its model.
#pragma once

#include "lasp/v1/training_spec.pb.h"
#include "proto/spec/field_checker.h"

namespace lasp {

// Refuses the fields of spec.model that no model can have, each and together; returns whether they
// are sound.
bool CheckModel(const v1::ModelSpec& model, FieldChecker* check);

}  // namespace lasp
