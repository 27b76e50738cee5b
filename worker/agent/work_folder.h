// The agent's folder: locked by one agent at a time, it keeps the worker's id, the record of
// started ranks and the logs of ranks.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "proto/spec/unique_fd.h"

namespace lasp::worker {

class WorkFolder {
 public:
  // Makes `path` where it is missing and locks it. FAILED_PRECONDITION naming the folder and the
  // holder's process where another agent has it. The lock ends with the process.
  static absl::StatusOr<std::unique_ptr<WorkFolder>> Open(const std::string& path);

  // `requested` where it is not empty, else the id of the last run here, else the host's name; kept
  // for the next run. INVALID_ARGUMENT where it is not a worker id.
  absl::StatusOr<std::string> WorkerId(const std::string& requested) const;

  std::string ranks() const { return path_ + "/ranks"; }

  std::string logs() const { return path_ + "/logs"; }

 private:
  WorkFolder(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  const std::string path_;
  const UniqueFd lock_;
};

// The host's name, "localhost" where it has none.
std::string HostName();

}  // namespace lasp::worker
