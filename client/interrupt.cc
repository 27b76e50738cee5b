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
  // The signal that came in a scope; 0 before.
  int signal GUARDED_BY(mutex) = 0;
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
    if (state.signal != 0 || state.callbacks.empty()) {
      _exit(kExitOfSignal + signal);
    }
    state.signal = signal;
    state.changed.NotifyAll();
    for (const std::function<void()>* callback : state.callbacks) {
      (*callback)();
    }
  }
}

}  // namespace

void TakeInterrupts() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action = {};
    if (sigaction(signal, nullptr, &action) != 0 || action.sa_handler != SIG_IGN) {
      sigaddset(&signals, signal);
    }
  }
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
  return state.signal != 0;
}

int InterruptExitCode() {
  State& state = Shared();
  MutexLock lock(&state.mutex);
  return kExitOfSignal + state.signal;
}

bool WaitForInterrupt(absl::Duration timeout) {
  State& state = Shared();
  const absl::Time end = absl::Now() + timeout;
  MutexLock lock(&state.mutex);
  while (state.signal == 0 && absl::Now() < end) {
    state.changed.WaitWithTimeout(&state.mutex, end - absl::Now());
  }
  return state.signal != 0;
}

}  // namespace lasp::client
