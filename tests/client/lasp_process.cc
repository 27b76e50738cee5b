#include "tests/client/lasp_process.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace lasp::client {
namespace {

constexpr absl::Duration kLimit = absl::Seconds(60);
constexpr absl::Duration kTerminalLimit = absl::Seconds(60);

// Arguments or environment as exec wants them; the strings must outlive it.
std::vector<char*> Pointers(std::vector<std::string>* strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings->size() + 1);
  for (std::string& text : *strings) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

struct Command {
  Command(const std::vector<std::string>& arguments, const Environment& environment) {
    words.emplace_back(LASP_BINARY);
    words.insert(words.end(), arguments.begin(), arguments.end());
    variables.emplace_back("PATH=/usr/bin:/bin");
    for (const auto& [name, value] : environment) {
      variables.push_back(absl::StrCat(name, "=", value));
    }
    // The sanitizers' options, where this is such a build.
    for (const char* name : {"ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"}) {
      if (const char* value = std::getenv(name)) {
        variables.push_back(absl::StrCat(name, "=", value));
      }
    }
    argv = Pointers(&words);
    envp = Pointers(&variables);
  }

  std::vector<std::string> words;
  std::vector<std::string> variables;
  std::vector<char*> argv;
  std::vector<char*> envp;
};

int ExitCodeOf(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

ProcessResult RunLasp(const std::vector<std::string>& arguments, const Environment& environment,
                      const std::string& input) {
  Command command(arguments, environment);
  int in[2];
  int out[2];
  int error[2];
  ProcessResult result;
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(error, O_CLOEXEC) != 0) {
    return result;
  }
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(error[1], STDERR_FILENO);
    execve(command.argv[0], command.argv.data(), command.envp.data());
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  close(error[1]);
  // Job files of tests fit into a pipe.
  if (write(in[1], input.data(), input.size()) != static_cast<ssize_t>(input.size())) {
    result.error = "could not write the input";
  }
  close(in[1]);
  const absl::Time deadline = absl::Now() + kLimit;
  pollfd polled[] = {{out[0], POLLIN, 0}, {error[0], POLLIN, 0}};
  std::string* const texts[] = {&result.out, &result.error};
  while ((polled[0].fd >= 0 || polled[1].fd >= 0) && absl::Now() < deadline) {
    poll(polled, 2, static_cast<int>(absl::ToInt64Milliseconds(deadline - absl::Now())) + 1);
    for (int i = 0; i < 2; ++i) {
      char buffer[65536];
      if (polled[i].fd < 0 || polled[i].revents == 0) {
        continue;
      }
      const ssize_t count = read(polled[i].fd, buffer, sizeof(buffer));
      if (count > 0) {
        texts[i]->append(buffer, static_cast<size_t>(count));
      } else {
        polled[i].fd = -1;
      }
    }
  }
  const bool late = polled[0].fd >= 0 || polled[1].fd >= 0;
  if (late) {
    kill(pid, SIGKILL);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  close(out[0]);
  close(error[0]);
  result.exit_code = late ? -1 : ExitCodeOf(status);
  return result;
}

TerminalProcess::TerminalProcess(const std::vector<std::string>& arguments,
                                 const Environment& environment, int columns) {
  Command command(arguments, environment);
  winsize size = {};
  size.ws_row = 24;
  size.ws_col = static_cast<uint16_t>(columns);
  pid_ = forkpty(&terminal_, nullptr, nullptr, &size);
  if (pid_ == 0) {
    execve(command.argv[0], command.argv.data(), command.envp.data());
    _exit(127);
  }
}

TerminalProcess::~TerminalProcess() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close(terminal_);
}

bool TerminalProcess::ReadSome(absl::Time deadline) {
  pollfd polled = {terminal_, POLLIN, 0};
  const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
  if (left <= 0 || poll(&polled, 1, static_cast<int>(left)) <= 0) {
    return false;
  }
  char buffer[4096];
  const ssize_t count = read(terminal_, buffer, sizeof(buffer));
  if (count <= 0) {
    return false;  // EIO: the other side is closed
  }
  output_.append(buffer, static_cast<size_t>(count));
  return true;
}

bool TerminalProcess::WaitFor(const std::string& text) {
  const absl::Time deadline = absl::Now() + kTerminalLimit;
  while (true) {
    const size_t found = output_.find(text, seen_);
    if (found != std::string::npos) {
      seen_ = found + text.size();
      return true;
    }
    if (!ReadSome(deadline)) {
      return false;
    }
  }
}

void TerminalProcess::Type(const std::string& keys) {
  static_cast<void>(!write(terminal_, keys.data(), keys.size()));
}

void TerminalProcess::Signal(int number) { kill(pid_, number); }

int TerminalProcess::Wait() {
  const absl::Time deadline = absl::Now() + kTerminalLimit;
  while (ReadSome(deadline)) {
  }
  int status = 0;
  if (absl::Now() >= deadline || waitpid(pid_, &status, 0) != pid_) {
    return -1;
  }
  pid_ = -1;
  return ExitCodeOf(status);
}

}  // namespace lasp::client
