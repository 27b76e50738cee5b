#include "worker/engine/thread_stacks.h"

#include <dirent.h>
#include <execinfo.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <fstream>

#include "absl/debugging/symbolize.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

namespace lasp::worker {
namespace {

constexpr int kMostFrames = 48;

// The answer of the thread that is asked. A late answer to an earlier question has another number
// and is not taken.
struct Answer {
  std::atomic<int> question{0};
  std::array<void*, kMostFrames> frames;
  int count = 0;
  sem_t given;
};

Answer g_answer;

int StackSignal() { return SIGRTMIN + 5; }

void TellStack(int /*signal*/, siginfo_t* info, void* /*context*/) {
  const int saved = errno;
  int question = info->si_value.sival_int;
  // Only one thread answers, and only the question that stands.
  if (question != 0 && g_answer.question.compare_exchange_strong(question, 0)) {
    // By the unwinding tables, since libraries keep no frame pointers.
    g_answer.count = backtrace(g_answer.frames.data(), kMostFrames);
    sem_post(&g_answer.given);
  }
  errno = saved;
}

std::vector<int> Threads() {
  std::vector<int> threads;
  DIR* const folder = opendir("/proc/self/task");
  if (folder == nullptr) {
    return threads;
  }
  while (const dirent* const entry = readdir(folder)) {
    int thread = 0;
    if (absl::SimpleAtoi(entry->d_name, &thread)) {
      threads.push_back(thread);
    }
  }
  closedir(folder);
  return threads;
}

bool Ask(int thread, int question) {
  siginfo_t info = {};
  info.si_code = SI_QUEUE;
  info.si_pid = getpid();
  info.si_uid = getuid();
  info.si_value.sival_int = question;
  return syscall(SYS_rt_tgsigqueueinfo, getpid(), thread, StackSignal(), &info) == 0;
}

bool AwaitAnswer(absl::Duration patience) {
  timespec deadline{};
  clock_gettime(CLOCK_MONOTONIC, &deadline);
  deadline = absl::ToTimespec(absl::DurationFromTimespec(deadline) + patience);
  int waited = 0;
  do {
    waited = sem_clockwait(&g_answer.given, CLOCK_MONOTONIC, &deadline);
  } while (waited != 0 && errno == EINTR);
  return waited == 0;
}

std::string NameOf(int thread) {
  std::ifstream file(absl::StrFormat("/proc/self/task/%d/comm", thread));
  std::string name;
  std::getline(file, name);
  return name;
}

std::string FrameName(void* address) {
  std::array<char, 256> name{};
  // The address behind a call may be the next function's.
  if (absl::Symbolize(static_cast<char*>(address) - 1, name.data(), name.size())) {
    return name.data();
  }
  return absl::StrFormat("%p", address);
}

}  // namespace

void PrepareThreadStacks() {
  sem_init(&g_answer.given, 0, 0);
  struct sigaction action = {};
  action.sa_sigaction = TellStack;
  action.sa_flags = SA_RESTART | SA_SIGINFO;
  sigaction(StackSignal(), &action, nullptr);
  // What the first call loads is not to be loaded in a signal handler.
  std::array<void*, 1> frames{};
  backtrace(frames.data(), 1);
}

std::vector<ThreadStack> ThreadStacks(absl::Duration patience) {
  static std::atomic<int> questions{0};
  std::vector<ThreadStack> stacks;
  for (const int thread : Threads()) {
    ThreadStack& stack = stacks.emplace_back();
    stack.thread = thread;
    stack.name = NameOf(thread);
    int question = ++questions;
    g_answer.question = question;
    if (!Ask(thread, question)) {
      g_answer.question = 0;
      continue;
    }
    if (!AwaitAnswer(patience)) {
      // Unless it is answering just now.
      if (g_answer.question.compare_exchange_strong(question, 0) || !AwaitAnswer(patience)) {
        continue;
      }
    }
    // Without the handler and what the kernel calls it from.
    for (int i = 2; i < g_answer.count; ++i) {
      stack.frames.push_back(FrameName(g_answer.frames[static_cast<size_t>(i)]));
    }
  }
  return stacks;
}

}  // namespace lasp::worker
