#include "worker/agent/rank_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/engine/rank_channel.h"

namespace lasp::worker {
namespace {

// Everything the child needs, made before the fork: between fork and exec only async-signal-safe
// calls are allowed, since other threads may have held any lock.
struct ChildPlan {
  const char* binary;
  char* const* arguments;
  char* const* environment;
  int channel;
  int log;
  int error;
  pid_t parent;
};

[[noreturn]] void FailChild(int error_pipe, int error) {
  // The parent reads this instead of the end of the pipe.
  [[maybe_unused]] const ssize_t written = write(error_pipe, &error, sizeof(error));
  _exit(127);
}

[[noreturn]] void RunChild(const ChildPlan& plan) {
  // The descriptors go to 3 (channel) and 4 (error); first out of the way of both.
  const int channel = fcntl(plan.channel, F_DUPFD, 10);
  const int log = fcntl(plan.log, F_DUPFD, 10);
  const int error = fcntl(plan.error, F_DUPFD_CLOEXEC, 10);
  if (channel < 0 || log < 0 || error < 0) {
    FailChild(plan.error, errno);
  }
  constexpr int kError = kRankChannelDescriptor + 1;
  if (setpgid(0, 0) != 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0 ||
      dup2(channel, kRankChannelDescriptor) < 0 || dup3(error, kError, O_CLOEXEC) < 0) {
    FailChild(error, errno);
  }
  close(STDIN_FILENO);
  if (open("/dev/null", O_RDONLY) != STDIN_FILENO ||
      syscall(SYS_close_range, kError + 1, ~0U, 0) != 0) {
    FailChild(kError, errno);
  }
  for (int signal_number = 1; signal_number < NSIG; ++signal_number) {
    signal(signal_number, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // What a rank writes is its user's alone, and nothing that it runs gains rights.
  umask(077);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
    FailChild(kError, errno);
  }
  if (getppid() != plan.parent) {
    _exit(127);  // the agent died before the death signal was set
  }
  execve(plan.binary, plan.arguments, plan.environment);
  FailChild(kError, errno);
}

absl::Status StartError(const std::string& binary, absl::string_view action, int error) {
  const std::string message =
      absl::StrCat("cannot start ", binary, ": ", action, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(message);
    case EAGAIN:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::InternalError(message);
  }
}

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (const std::string& text : strings) {
    pointers.push_back(const_cast<char*>(text.c_str()));
  }
  pointers.push_back(nullptr);
  return pointers;
}

struct Pipe {
  UniqueFd reader;
  UniqueFd writer;
};

absl::StatusOr<Pipe> MakePipe(const std::string& binary) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return StartError(binary, "pipe", errno);
  }
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

void SetNonBlocking(int descriptor) {
  fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK);
}

// Waits until the child has become the binary (the pipe ends) or said why it could not.
int ReadChildError(int descriptor) {
  int error = 0;
  ssize_t count = 0;
  do {
    count = read(descriptor, &error, sizeof(error));
  } while (count < 0 && errno == EINTR);
  return count == sizeof(error) ? error : 0;
}

}  // namespace

absl::StatusOr<RankProcess> StartRankProcess(const std::string& binary,
                                             const std::vector<std::string>& environment) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
    return StartError(binary, "socketpair", errno);
  }
  UniqueFd own_end(sockets[0]);
  UniqueFd rank_end(sockets[1]);
  absl::StatusOr<Pipe> log = MakePipe(binary);
  absl::StatusOr<Pipe> error = MakePipe(binary);
  if (!log.ok() || !error.ok()) {
    return log.ok() ? error.status() : log.status();
  }
  const std::vector<std::string> arguments = {binary};
  const std::vector<char*> argument_pointers = Pointers(arguments);
  const std::vector<char*> environment_pointers = Pointers(environment);
  const ChildPlan plan = {.binary = binary.c_str(),
                          .arguments = argument_pointers.data(),
                          .environment = environment_pointers.data(),
                          .channel = rank_end.get(),
                          .log = log->writer.get(),
                          .error = error->writer.get(),
                          .parent = getpid()};
  // No handler of ours may run in the child before exec.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  if (pid == 0) {
    RunChild(plan);
  }
  const int fork_error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) {
    return StartError(binary, "fork", fork_error);
  }
  RankProcess process;
  process.pid = pid;
  process.pidfd = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  const int pidfd_error = errno;
  error->writer = UniqueFd();
  const int child_error = ReadChildError(error->reader.get());
  if (child_error != 0 || !process.pidfd.valid()) {
    KillRankProcess(pid);
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return child_error != 0 ? StartError(binary, "exec", child_error)
                            : StartError(binary, "pidfd_open", pidfd_error);
  }
  process.channel = std::move(own_end);
  process.log = std::move(log->reader);
  SetNonBlocking(process.channel.get());
  SetNonBlocking(process.log.get());
  return process;
}

void KillRankProcess(pid_t pid) {
  // The group too: what a rank has started does not outlive it.
  kill(-pid, SIGKILL);
  kill(pid, SIGKILL);
}

}  // namespace lasp::worker
