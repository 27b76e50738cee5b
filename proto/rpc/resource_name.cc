#include "proto/rpc/resource_name.h"

#include <algorithm>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace lasp {
namespace {

absl::Status BadName(absl::string_view name, absl::string_view form) {
  // The name came from outside and may be of any length.
  return absl::InvalidArgumentError(
      absl::StrCat("'", name.substr(0, 120), "' is not a name of the form ", form));
}

}  // namespace

std::string JobName::ToString() const {
  return absl::StrCat("projects/", project, "/trainingJobs/", job);
}

std::string CheckpointName::ToString() const {
  return absl::StrCat(job.ToString(), "/checkpoints/", step);
}

bool IsValidId(absl::string_view id) {
  if (id.empty() || id.size() > 63 ||
      !absl::ascii_islower(static_cast<unsigned char>(id.front())) || id.back() == '-') {
    return false;
  }
  return std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-';
  });
}

absl::StatusOr<JobName> ParseJobName(absl::string_view name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  if (parts.size() != 4 || parts[0] != "projects" || parts[2] != "trainingJobs" ||
      !IsValidId(parts[1]) || !IsValidId(parts[3])) {
    return BadName(name, "projects/{project}/trainingJobs/{job}");
  }
  return JobName{parts[1], parts[3]};
}

absl::StatusOr<CheckpointName> ParseCheckpointName(absl::string_view name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  int64_t step = 0;
  if (parts.size() != 6 || parts[0] != "projects" || parts[2] != "trainingJobs" ||
      parts[4] != "checkpoints" || !IsValidId(parts[1]) || !IsValidId(parts[3]) ||
      !absl::SimpleAtoi(parts[5], &step) || step < 1 || absl::StrCat(step) != parts[5]) {
    return BadName(name, "projects/{project}/trainingJobs/{job}/checkpoints/{step}");
  }
  return CheckpointName{{parts[1], parts[3]}, step};
}

absl::StatusOr<std::string> ParseProjectName(absl::string_view parent, bool allow_any) {
  const std::vector<std::string> parts = absl::StrSplit(parent, '/');
  if (parts.size() == 2 && parts[0] == "projects" &&
      (IsValidId(parts[1]) || (allow_any && parts[1] == kAnyProject))) {
    return parts[1];
  }
  return BadName(parent, "projects/{project}");
}

bool IsValidWorkerId(absl::string_view id) {
  if (id.empty() || id.size() > 253 ||
      !absl::ascii_isalnum(static_cast<unsigned char>(id.front()))) {
    return false;
  }
  return std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
}

absl::StatusOr<std::string> ParseWorkerName(absl::string_view name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  if (parts.size() == 2 && parts[0] == "workers" && IsValidWorkerId(parts[1])) {
    return parts[1];
  }
  return BadName(name, "workers/{worker}");
}

}  // namespace lasp
