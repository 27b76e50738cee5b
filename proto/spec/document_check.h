// What a spec may say of the documents of its corpora.
#pragma once

#include "lasp/v1/training_spec.pb.h"
#include "proto/spec/field_checker.h"

namespace lasp {

// Refuses spec.data.documents and spec.data.document_end_token where they are of no use; returns
// whether they are sound.
bool CheckDocuments(const v1::TrainingSpec& spec, FieldChecker* check);

}  // namespace lasp
