#include "tests/worker/agent/worker_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace lasp::worker::testing {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

WorkerProcess::WorkerProcess(const std::vector<std::string>& arguments) {
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) {
    std::abort();
  }
  char pattern[] = "/tmp/lasp-worker-stderr-XXXXXX";
  const int stderr_file = mkostemp(pattern, O_CLOEXEC);
  stderr_path_ = pattern;
  std::vector<std::string> all = {LASP_WORKER_BINARY};
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  pointers.reserve(all.size());
  for (std::string& argument : all) {
    pointers.push_back(argument.data());
  }
  pointers.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    dup2(pipe_ends[1], STDOUT_FILENO);
    dup2(stderr_file, STDERR_FILENO);
    execv(pointers[0], pointers.data());
    _exit(127);
  }
  close(pipe_ends[1]);
  close(stderr_file);
  stdout_ = pipe_ends[0];
}

WorkerProcess::~WorkerProcess() {
  Signal(SIGKILL);
  Wait(absl::Seconds(10));
  close(stdout_);
  unlink(stderr_path_.c_str());
}

std::string WorkerProcess::ReadServingLine() {
  std::string line;
  char c = 0;
  while (read(stdout_, &c, 1) == 1 && c != '\n') {
    line += c;
  }
  return line;
}

void WorkerProcess::Signal(int signal_number) const {
  if (exit_code_ < 0) {
    kill(pid_, signal_number);
  }
}

int WorkerProcess::Wait(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (exit_code_ < 0) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      exit_code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    } else if (absl::Now() > deadline) {
      break;
    } else {
      absl::SleepFor(absl::Milliseconds(5));
    }
  }
  return exit_code_;
}

std::string WorkerProcess::ReadStderr() const { return ReadFile(stderr_path_); }

std::vector<pid_t> RanksNamed(const std::string& name) {
  std::vector<pid_t> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    pid_t pid = 0;
    if (!absl::SimpleAtoi(entry.path().filename().string(), &pid)) {
      continue;
    }
    const std::string stat = ReadFile(entry.path().string() + "/stat");
    const std::string in_stat = absl::StrCat("(", name, ") ");
    if (absl::StrContains(stat, in_stat) && !absl::StrContains(stat, in_stat + "Z")) {
      found.push_back(pid);
    }
  }
  return found;
}

bool WaitForRanks(const std::string& name, size_t count, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (RanksNamed(name).size() != count) {
    if (absl::Now() > deadline) {
      return false;
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
  return true;
}

}  // namespace lasp::worker::testing
