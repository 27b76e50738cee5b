#include "tests/worker/parallel/gpu_rank_processes.h"

#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <utility>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/nccl_world.h"

namespace lasp::worker {
namespace {

struct Pipe {
  int read_end = -1;
  int write_end = -1;
};

absl::StatusOr<Pipe> OpenPipe() {
  std::array<int, 2> ends = {-1, -1};
  if (pipe(ends.data()) != 0) {
    return absl::ErrnoToStatus(errno, "opening a pipe");
  }
  return Pipe{.read_end = ends[0], .write_end = ends[1]};
}

absl::Status WriteAll(int descriptor, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t written = write(descriptor, text.data() + done, text.size() - done);
    if (written < 0) {
      return absl::ErrnoToStatus(errno, "writing to a pipe");
    }
    done += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

// Until the other end is closed, or `most` bytes have come.
std::string ReadAll(int descriptor, size_t most) {
  std::string text;
  std::array<char, 4096> part = {};
  while (text.size() < most) {
    const ssize_t count = read(descriptor, part.data(), std::min(part.size(), most - text.size()));
    if (count <= 0) {
      break;
    }
    text.append(part.data(), static_cast<size_t>(count));
  }
  return text;
}

// Rank 0 makes the id and writes one for each of the others, which take one each.
absl::StatusOr<std::string> ShareId(int rank, int ranks, const Pipe& ids) {
  constexpr size_t kIdBytes = 128;
  if (rank != 0) {
    close(ids.write_end);
    return ReadAll(ids.read_end, kIdBytes);
  }
  LASP_ASSIGN_OR_RETURN(std::string id, MakeNcclId());
  for (int other = 1; other < ranks; ++other) {
    LASP_RETURN_IF_ERROR(WriteAll(ids.write_end, id));
  }
  close(ids.write_end);
  return id;
}

// A child's whole life. The first character of what it says tells a result from an error.
[[noreturn]] void Live(const GpuRanksOptions& options, int rank, const Pipe& ids, int outcome,
                       const std::function<absl::StatusOr<std::string>(LocalRank&)>& body) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::string result;
  const absl::Status status = [&]() -> absl::Status {
    LASP_ASSIGN_OR_RETURN(const std::string id,
                          ShareId(rank, options.sp_size * options.dp_size, ids));
    return RunGpuRank(options, rank, id, [&](LocalRank& local) -> absl::Status {
      LASP_ASSIGN_OR_RETURN(result, body(local));
      return absl::OkStatus();
    });
  }();
  const bool said = WriteAll(outcome, status.ok() ? "+" + result : "-" + status.ToString()).ok();
  // Without the parent's destructors and buffers.
  _exit(said ? 0 : 1);
}

}  // namespace

std::vector<absl::StatusOr<std::string>> RunGpuRankProcesses(
    const GpuRanksOptions& options,
    const std::function<absl::StatusOr<std::string>(LocalRank&)>& body) {
  setenv("NCCL_NVLS_ENABLE", "0", 1);
  const int ranks = options.sp_size * options.dp_size;
  const absl::StatusOr<Pipe> ids = OpenPipe();
  if (!ids.ok()) {
    return {ids.status()};
  }
  std::vector<absl::StatusOr<std::string>> results(static_cast<size_t>(ranks));
  std::vector<std::pair<pid_t, int>> children(static_cast<size_t>(ranks), {-1, -1});
  for (int rank = 0; rank < ranks; ++rank) {
    const absl::StatusOr<Pipe> outcome = OpenPipe();
    if (!outcome.ok()) {
      results[static_cast<size_t>(rank)] = outcome.status();
      continue;
    }
    const pid_t child = fork();
    if (child == 0) {
      Live(options, rank, *ids, outcome->write_end, body);
    }
    close(outcome->write_end);
    children[static_cast<size_t>(rank)] = {child, outcome->read_end};
  }
  close(ids->read_end);
  close(ids->write_end);
  for (size_t rank = 0; rank < children.size(); ++rank) {
    const auto [child, outcome] = children[rank];
    if (outcome < 0) {
      continue;
    }
    std::string said = ReadAll(outcome, std::string::npos);
    close(outcome);
    waitpid(child, nullptr, 0);
    if (said.empty()) {
      results[rank] = absl::AbortedError("the rank's process died");
    } else if (said[0] == '+') {
      results[rank] = said.substr(1);
    } else {
      results[rank] = absl::InternalError(said.substr(1));
    }
  }
  return results;
}

}  // namespace lasp::worker
