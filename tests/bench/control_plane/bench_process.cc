#include "tests/bench/control_plane/bench_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

namespace lasp::bench {

BenchProcess::BenchProcess(const std::vector<std::string>& arguments, const std::string& folder,
                           const std::string& name)
    : output_(absl::StrCat(folder, "/", name, ".out")) {
  std::vector<std::string> words = {"control_plane"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    const int out = open(output_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (out >= 0 && dup2(out, STDOUT_FILENO) >= 0) {
      execv("/proc/self/exe", argv.data());
    }
    _exit(127);
  }
}

BenchProcess::~BenchProcess() { End(SIGKILL); }

nlohmann::json BenchProcess::AwaitLine(size_t number, absl::Duration timeout) const {
  const absl::Time deadline = absl::Now() + timeout;
  while (absl::Now() < deadline) {
    std::ifstream file(output_);
    std::string line;
    for (size_t i = 0; std::getline(file, line); ++i) {
      if (i == number && !file.eof()) {
        return nlohmann::json::parse(line, nullptr, false);
      }
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
  Die(absl::StrCat(output_, ": line ", number, " did not come in time"));
}

void BenchProcess::End(int signal_number) {
  if (pid_ > 0) {
    kill(pid_, signal_number);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
}

double BenchProcess::CpuSeconds() const {
  std::ifstream file(absl::StrCat("/proc/", pid_, "/stat"));
  std::string line;
  std::getline(file, line);
  const std::vector<std::string> words = absl::StrSplit(line.substr(line.rfind(')') + 2), ' ');
  // utime and stime, fields 14 and 15 of proc(5).
  return (std::strtod(words[11].c_str(), nullptr) + std::strtod(words[12].c_str(), nullptr)) /
         static_cast<double>(sysconf(_SC_CLK_TCK));
}

double BenchProcess::StatusMib(const std::string& key) const {
  std::ifstream file(absl::StrCat("/proc/", pid_, "/status"));
  std::string word;
  while (file >> word) {
    if (word == key) {
      double kib = 0;
      file >> kib;
      return kib / 1'024;
    }
  }
  return 0;
}

void Die(const std::string& message) {
  std::fprintf(stderr, "control_plane: %s\n", message.c_str());
  std::exit(1);  // NOLINT(concurrency-mt-unsafe)
}

}  // namespace lasp::bench
