// Where the threads of this process are.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace lasp::worker {

struct ThreadStack {
  int thread = 0;  // the kernel's number
  std::string name;
  // Innermost first, as `function` or, where that is not known, an address; empty where the thread
  // does not answer: it is stopped, or deep in the kernel.
  std::vector<std::string> frames;
};

// Call once, before the first call of the other and before threads exist that block all signals.
void PrepareThreadStacks();

// Interrupts each thread by a signal to look where it is, and waits at most so long for each. A
// system call that a signal ends comes back with EINTR: for a process that is about to be ended.
// One caller at a time.
std::vector<ThreadStack> ThreadStacks(absl::Duration patience);

}  // namespace lasp::worker
