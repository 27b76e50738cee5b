// Runs the real `lasp`, with pipes or on a terminal of its own.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace lasp::client {

using Environment = std::map<std::string, std::string>;

struct ProcessResult {
  // 128 + n where a signal ended it; -1 where it had to be killed for taking more than 60 s.
  int exit_code = -1;
  std::string out;
  std::string error;
};

// Runs to the end. The environment holds PATH and `environment`, nothing else.
ProcessResult RunLasp(const std::vector<std::string>& arguments,
                      const Environment& environment = {}, const std::string& input = "");

// `lasp` with a pseudo-terminal as all three streams.
class TerminalProcess {
 public:
  TerminalProcess(const std::vector<std::string>& arguments, const Environment& environment,
                  int columns);
  // Kills what still runs.
  ~TerminalProcess();
  TerminalProcess(const TerminalProcess&) = delete;
  TerminalProcess& operator=(const TerminalProcess&) = delete;

  // Reads until `text` has been seen since the last call. Returns false after 60 s or at the end.
  bool WaitFor(const std::string& text);
  void Type(const std::string& keys);
  void Signal(int number);
  // Reads to the end and gives the exit code; -1 after 60 s.
  int Wait();

  // All it has written so far, with the terminal's line ends.
  const std::string& output() const { return output_; }

 private:
  // Returns false at the end and when the time is over.
  bool ReadSome(absl::Time deadline);

  pid_t pid_ = -1;
  int terminal_ = -1;
  std::string output_;
  size_t seen_ = 0;
};

}  // namespace lasp::client
