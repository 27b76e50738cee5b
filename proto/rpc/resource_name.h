// Resource names: projects/{project}, projects/{project}/trainingJobs/{job}, workers/{worker}.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lasp {

// The project that always exists.
inline constexpr char kDefaultProject[] = "default";
// In `projects/-`: all projects (lists and watches only).
inline constexpr char kAnyProject[] = "-";

struct JobName {
  std::string project;
  std::string job;
  // projects/{project}/trainingJobs/{job}
  std::string ToString() const;
};

struct CheckpointName {
  JobName job;
  int64_t step = 0;
  // projects/{project}/trainingJobs/{job}/checkpoints/{step}
  std::string ToString() const;
};

// Whether `id` is `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`.
bool IsValidId(absl::string_view id);

// Each gives INVALID_ARGUMENT that shows the expected form.
absl::StatusOr<JobName> ParseJobName(absl::string_view name);
absl::StatusOr<CheckpointName> ParseCheckpointName(absl::string_view name);
// `projects/{project}`; `projects/-` only where `allow_any`.
absl::StatusOr<std::string> ParseProjectName(absl::string_view parent, bool allow_any = false);
// Worker ids are host names or chosen by the operator: `[A-Za-z0-9]([A-Za-z0-9._-]{0,252})`.
bool IsValidWorkerId(absl::string_view id);
absl::StatusOr<std::string> ParseWorkerName(absl::string_view name);

}  // namespace lasp
