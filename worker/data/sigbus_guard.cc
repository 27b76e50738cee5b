#include "worker/data/sigbus_guard.h"

#include <setjmp.h>
#include <signal.h>

#include <atomic>
#include <cstdint>
#include <cstring>

namespace lasp::worker {
namespace {

// The copy in progress of this thread. A handler may only read plain thread-local data.
struct GuardedCopy {
  sigjmp_buf resume;
  uintptr_t begin;
  uintptr_t end;
};

thread_local GuardedCopy* current_copy = nullptr;

struct sigaction previous_action;

void HandleSigbus(int signal, siginfo_t* info, void* context) {
  GuardedCopy* const copy = current_copy;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  // The fault is the first byte that could not be had, so it lies in the source range; si_addr may
  // be rounded down to its page.
  constexpr uintptr_t kPage = 1 << 16;
  if (copy != nullptr && address + kPage > copy->begin && address < copy->end) {
    siglongjmp(copy->resume, 1);
  }
  if ((previous_action.sa_flags & SA_SIGINFO) != 0 && previous_action.sa_sigaction != nullptr) {
    previous_action.sa_sigaction(signal, info, context);
    return;
  }
  if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
    return;
  }
  // Not ours: returning with the default action touches the page again and ends the process.
  sigaction(SIGBUS, &previous_action, nullptr);
}

bool InstallHandler() {
  struct sigaction action = {};
  action.sa_sigaction = HandleSigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &previous_action);
  return true;
}

}  // namespace

bool CopyFromMapping(void* destination, const void* source, size_t bytes) {
  static const bool installed = InstallHandler();
  (void)installed;
  GuardedCopy copy;
  copy.begin = reinterpret_cast<uintptr_t>(source);
  copy.end = copy.begin + bytes;
  // Saves the signal mask, so that SIGBUS is unblocked again after a jump out of its handler.
  if (sigsetjmp(copy.resume, 1) != 0) {
    current_copy = nullptr;
    return false;
  }
  current_copy = &copy;
  // The handler runs in this thread: the compiler must not move the copy past these stores, nor
  // drop them.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  std::memcpy(destination, source, bytes);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  current_copy = nullptr;
  return true;
}

}  // namespace lasp::worker
