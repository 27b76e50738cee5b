// Ctrl-C. SIGINT is taken by a thread of its own, so that a command may end its stream in good
// order; outside of an InterruptScope it ends the program at once, with 130.
#pragma once

#include <functional>

#include "absl/time/time.h"

namespace lasp::client {

// Call first in main, before any thread exists: blocks SIGINT in all of them and starts the thread
// that waits for it. Does nothing where SIGINT is ignored already (a job in the background).
void TakeInterrupts();

// While any lives, the first SIGINT calls the `on_interrupt` of each (on the waiting thread)
// instead of ending the program; the second one ends it.
class InterruptScope {
 public:
  explicit InterruptScope(std::function<void()> on_interrupt);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  const std::function<void()> on_interrupt_;
};

// Whether a SIGINT has come in a scope.
bool Interrupted();

// Waits for a SIGINT in a scope, at most `timeout`. Returns whether one has come.
bool WaitForInterrupt(absl::Duration timeout);

}  // namespace lasp::client
