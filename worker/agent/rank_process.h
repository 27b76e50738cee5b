// Starts one rank process. What it inherits is decided here: the channel as descriptor 3, a pipe as
// stdout and stderr and no other descriptor, a process group of its own, umask 077, no way to more
// privileges (no_new_privs), and death when the thread that started it ends.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/spec/unique_fd.h"

namespace lasp::worker {

struct RankProcess {
  pid_t pid = -1;
  // Readable once the process has ended.
  UniqueFd pidfd;
  // The agent's end of the socketpair; non-blocking.
  UniqueFd channel;
  // The reading end of stdout and stderr; non-blocking.
  UniqueFd log;
};

// Runs `binary` with `environment` (entries NAME=VALUE) and without arguments. The caller's thread
// must live as long as the rank may: the kernel kills the rank when it ends. NOT_FOUND or
// PERMISSION_DENIED where the binary cannot be run, RESOURCE_EXHAUSTED where the system has no
// room.
absl::StatusOr<RankProcess> StartRankProcess(const std::string& binary,
                                             const std::vector<std::string>& environment);

// SIGKILL to the process and its group.
void KillRankProcess(pid_t pid);

}  // namespace lasp::worker
