#include "client/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "client/exit_code.h"
#include "proto/rpc/mutex.h"

namespace lasp::client {
namespace {

struct State {
  Mutex mutex;
  CondVar changed;
  bool interrupted GUARDED_BY(mutex) = false;
  // Of the scopes that live, innermost last.
  std::vector<const std::function<void()>*> callbacks GUARDED_BY(mutex);
  // It has nothing to finish and ends with the process; a join would wait for a signal for ever.
  std::thread waiter;
};

// Lives as long as the thread that waits for signals: to the end of the process.
State& Shared() {
  static State* const state = new State;
  return *state;
}

void WaitForSignals(sigset_t signals) {
  int signal = 0;
  while (sigwait(&signals, &signal) == 0) {
    State& state = Shared();
    MutexLock lock(&state.mutex);
    if (state.interrupted || state.callbacks.empty()) {
      _exit(kExitInterrupted);
    }
    state.interrupted = true;
    state.changed.NotifyAll();
    for (const std::function<void()>* callback : state.callbacks) {
      (*callback)();
    }
  }
}

}  // namespace

void TakeInterrupts() {
  struct sigaction action = {};
  if (sigaction(SIGINT, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) {
    return;
  }
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  Shared().waiter = std::thread(WaitForSignals, signals);
}

InterruptScope::InterruptScope(std::function<void()> on_interrupt)
    : on_interrupt_(std::move(on_interrupt)) {
  State& state = Shared();
  MutexLock lock(&state.mutex);
  state.callbacks.push_back(&on_interrupt_);
}

InterruptScope::~InterruptScope() {
  State& state = Shared();
  MutexLock lock(&state.mutex);
  std::erase(state.callbacks, &on_interrupt_);
}

bool Interrupted() {
  State& state = Shared();
  MutexLock lock(&state.mutex);
  return state.interrupted;
}

bool WaitForInterrupt(absl::Duration timeout) {
  State& state = Shared();
  const absl::Time end = absl::Now() + timeout;
  MutexLock lock(&state.mutex);
  while (!state.interrupted && absl::Now() < end) {
    state.changed.WaitWithTimeout(&state.mutex, end - absl::Now());
  }
  return state.interrupted;
}

}  // namespace lasp::client
