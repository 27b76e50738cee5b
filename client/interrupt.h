// Ctrl-C, and what else ends a program from outside: SIGINT, SIGTERM, SIGHUP. They are taken by a
// thread of its own, so that a command may end its stream and remove its files in good order;
// outside of an InterruptScope they end the program at once, with 128 and the signal's number.
#pragma once

#include <functional>

#include "absl/time/time.h"

namespace lasp::client {

// Call first in main, before any thread exists: blocks the signals in all of them and starts the
// thread that waits for them. Leaves alone those that are ignored already (SIGINT of a job in the
// background, SIGHUP under nohup).
void TakeInterrupts();

// While any lives, the first signal calls the `on_interrupt` of each (on the waiting thread)
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

// Whether a signal has come in a scope.
bool Interrupted();

// What the program exits with after it: 128 and its number, 130 for Ctrl-C.
int InterruptExitCode();

// Waits for a signal in a scope, at most `timeout`. Returns whether one has come.
bool WaitForInterrupt(absl::Duration timeout);

}  // namespace lasp::client
