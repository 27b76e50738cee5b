// Job files: a training job in YAML or JSON, and `--set` changes to it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lasp/v1/training_job.pb.h"

namespace lasp::client {

// A job as its user wrote it. `lines` gives the line of each field that the text names, so that
// what the coordinator says of a field can point into the file.
struct JobFile {
  lasp::v1::TrainingJob job;
  std::map<std::string, int> lines;
};

// The whole text of `path`, or of the standard input for "-". NOT_FOUND, PERMISSION_DENIED or
// INVALID_ARGUMENT (a folder, or more than 1 MiB).
absl::StatusOr<std::string> ReadJobText(const std::string& path);

// Reads display_name, labels, checkpoint_retention and spec. INVALID_ARGUMENT with every violation
// at once, each with its path and line; fields that the coordinator sets are refused.
absl::StatusOr<JobFile> ParseJobFile(absl::string_view text);

// Applies `path=VALUE`, for example `spec.max_steps=100`, `labels.team=nlp` or
// `spec.data.train_paths=[a.txt, b.txt]`. VALUE is YAML and replaces what was there, lists and maps
// included; `null` unsets.
absl::Status ApplySetting(absl::string_view setting, lasp::v1::TrainingJob* job);

}  // namespace lasp::client
