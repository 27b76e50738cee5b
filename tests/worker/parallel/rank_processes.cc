#include "tests/worker/parallel/rank_processes.h"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/unique_fd.h"

namespace lasp::worker {
namespace {

struct Child {
  pid_t pid = -1;
  UniqueFd socket;
};

absl::Status Write(int socket, const std::string& text) {
  const auto size = static_cast<uint32_t>(text.size());
  std::string message(reinterpret_cast<const char*>(&size), sizeof size);
  message += text;
  for (size_t done = 0; done < message.size();) {
    const ssize_t written =
        send(socket, message.data() + done, message.size() - done, MSG_NOSIGNAL);
    if (written <= 0) {
      return absl::ErrnoToStatus(errno, "writing to a rank's process, or from it");
    }
    done += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadBytes(int socket, size_t size) {
  std::string text(size, '\0');
  for (size_t done = 0; done < size;) {
    const ssize_t count = read(socket, text.data() + done, size - done);
    if (count <= 0) {
      return absl::AbortedError("the process at the other end has ended");
    }
    done += static_cast<size_t>(count);
  }
  return text;
}

absl::StatusOr<std::string> Read(int socket) {
  LASP_ASSIGN_OR_RETURN(const std::string head, ReadBytes(socket, sizeof(uint32_t)));
  uint32_t size = 0;
  std::memcpy(&size, head.data(), sizeof size);
  return ReadBytes(socket, size);
}

// A child's whole life. The first character of what it says tells a result from an error.
[[noreturn]] void Live(const RankProcessesOptions& options, int rank, int socket,
                       const std::function<absl::StatusOr<std::string>(LocalRank&)>& body) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // As lasp-rank does: a peer that has left is an error, not a signal.
  std::signal(SIGPIPE, SIG_IGN);
  const auto swap = [&](const std::string& mine) -> absl::StatusOr<std::vector<std::string>> {
    LASP_RETURN_IF_ERROR(Write(socket, mine));
    std::vector<std::string> all(static_cast<size_t>(options.ranks));
    for (std::string& address : all) {
      LASP_ASSIGN_OR_RETURN(address, Read(socket));
    }
    return all;
  };
  const auto live = [&](LocalRank& local) -> absl::Status {
    LASP_ASSIGN_OR_RETURN(const std::string result, body(local));
    LASP_RETURN_IF_ERROR(Write(socket, "+" + result));
    // Until the parent has heard from all.
    (void)Read(socket);
    return absl::OkStatus();
  };
  const absl::Status status =
      RunLocalRank({.sp_size = options.ranks, .timeout = options.timeout}, rank, swap, live);
  if (!status.ok()) {
    Write(socket, "-" + status.ToString()).IgnoreError();
  }
  // Without the parent's destructors and buffers.
  _exit(status.ok() ? 0 : 1);
}

absl::StatusOr<std::vector<Child>> Fork(
    const RankProcessesOptions& options,
    const std::function<absl::StatusOr<std::string>(LocalRank&)>& body) {
  std::vector<Child> children;
  for (int rank = 0; rank < options.ranks; ++rank) {
    int ends[2] = {-1, -1};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      return absl::ErrnoToStatus(errno, "making a pair of sockets");
    }
    UniqueFd own(ends[0]);
    UniqueFd theirs(ends[1]);
    const pid_t pid = fork();
    if (pid < 0) {
      return absl::ErrnoToStatus(errno, "starting a rank's process");
    }
    if (pid == 0) {
      // The earlier children's ends too, so that those see theirs close.
      children.clear();
      own = UniqueFd();
      Live(options, rank, theirs.get(), body);
    }
    children.push_back({.pid = pid, .socket = std::move(own)});
  }
  return children;
}

absl::Status Introduce(const RankProcessesOptions& options, const std::vector<Child>& children) {
  std::vector<std::string> addresses;
  for (const Child& child : children) {
    LASP_ASSIGN_OR_RETURN(std::string address, Read(child.socket.get()));
    addresses.push_back(std::move(address));
  }
  for (size_t rank = 0; rank < children.size(); ++rank) {
    std::vector<std::string> given = addresses;
    if (options.route) {
      LASP_ASSIGN_OR_RETURN(given, options.route(static_cast<int>(rank), addresses));
    }
    for (const std::string& address : given) {
      LASP_RETURN_IF_ERROR(Write(children[rank].socket.get(), address));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Outcome(const Child& child) {
  absl::StatusOr<std::string> said = Read(child.socket.get());
  if (!said.ok()) {
    return said;
  }
  const std::string text = said->substr(1);
  return absl::StartsWith(*said, "+") ? absl::StatusOr<std::string>(text)
                                      : absl::InternalError(text);
}

}  // namespace

std::vector<absl::StatusOr<std::string>> RunRankProcesses(
    const RankProcessesOptions& options,
    const std::function<absl::StatusOr<std::string>(LocalRank&)>& body) {
  absl::StatusOr<std::vector<Child>> children = Fork(options, body);
  if (!children.ok()) {
    return {children.status()};
  }
  std::vector<absl::StatusOr<std::string>> results;
  const absl::Status introduced = Introduce(options, *children);
  for (const Child& child : *children) {
    results.push_back(introduced.ok() ? Outcome(child) : introduced);
  }
  for (Child& child : *children) {
    child.socket = UniqueFd();
  }
  for (const Child& child : *children) {
    waitpid(child.pid, nullptr, 0);
  }
  return results;
}

}  // namespace lasp::worker
