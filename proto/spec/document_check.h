// What a spec may say of the documents of its corpora.
#pragma once

#include <string>

#include "lasp/v1/training_spec.pb.h"
#include "proto/spec/field_checker.h"

namespace lasp {

// Refuses spec.data.documents and spec.data.document_end_token where they are of no use; returns
// whether they are sound.
bool CheckDocuments(const v1::TrainingSpec& spec, FieldChecker* check);

// Why GPUs do not keep the job's documents apart, of spec.data.documents, and what to choose; empty
// where they do, and where documents are joined.
std::string ReasonAgainstDocumentsOnGpus(const v1::TrainingSpec& spec);

}  // namespace lasp
