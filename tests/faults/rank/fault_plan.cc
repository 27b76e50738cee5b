#include "tests/faults/rank/fault_plan.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"
#include "proto/spec/unique_fd.h"

namespace lasp::worker {
namespace {

const char* NameOf(FaultPlace place) {
  switch (place) {
    case FaultPlace::kStartUp:
      return "start-up";
    case FaultPlace::kRestore:
      return "restore";
    case FaultPlace::kForward:
      return "forward";
    case FaultPlace::kBackward:
      return "backward";
    case FaultPlace::kGradientSync:
      return "gradient-sync";
    case FaultPlace::kCheckpointWrite:
      return "checkpoint-write";
  }
  return "";
}

absl::Duration ReadPace(const std::string& folder) {
  std::ifstream file(folder + "/pace");
  int64_t milliseconds = 0;
  file >> milliseconds;
  return absl::Milliseconds(milliseconds);
}

double MonotonicSeconds() { return absl::ToDoubleSeconds(SystemClock().Monotonic()); }

// Appends a line with one call, so that lines of several processes do not mix. False where a new
// file was asked for and there is one.
bool WriteLine(const std::string& path, int flags, const std::string& line) {
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600));
  return file.valid() &&
         write(file.get(), line.data(), line.size()) == static_cast<ssize_t>(line.size());
}

// Until the cgroup's limit ends this process. A cell that forgot the limit must not end the host.
void TakeAllMemory() {
  constexpr size_t kBlock = size_t{16} << 20;
  constexpr size_t kMost = size_t{2} << 30;
  std::vector<std::unique_ptr<char[]>> blocks;
  blocks.reserve(kMost / kBlock);
  while (blocks.size() < kMost / kBlock) {
    blocks.push_back(std::make_unique<char[]>(kBlock));
    std::memset(blocks.back().get(), 1, kBlock);
  }
}

}  // namespace

FaultPlan::FaultPlan(const lasp::internal::v1::Setup& setup)
    : folder_(setup.path_roots(0)),
      rank_(setup.fence().rank()),
      generation_(setup.fence().generation()),
      address_(setup.rank_address()),
      pace_(ReadPace(folder_)),
      step_(setup.has_rebuild() ? setup.rebuild().state().step() : setup.restore_from().step()) {
  WriteLine(absl::StrCat(folder_, "/pid.", rank_), O_TRUNC, absl::StrCat(getpid(), "\n"));
}

bool FaultPlan::Claims(absl::string_view kind, FaultPlace place) {
  std::ifstream file(folder_ + "/fault");
  std::string wanted_kind;
  std::string wanted_place;
  int wanted_rank = -1;
  int64_t after_step = 0;
  if (!(file >> wanted_kind >> wanted_place >> wanted_rank >> after_step) || kind != wanted_kind ||
      wanted_place != NameOf(place) || wanted_rank != rank_ || step_ < after_step) {
    return false;
  }
  return WriteLine(folder_ + "/fault.done", O_EXCL,
                   absl::StrFormat("%.6f %.6f %d %d %d %s\n", MonotonicSeconds(),
                                   absl::ToDoubleSeconds(SystemClock().Now() - absl::UnixEpoch()),
                                   step_.load(), generation_, getpid(), address_));
}

void FaultPlan::Reach(FaultPlace place) {
  // To this very thread: what is sent to the process lets it run on until some thread takes it.
  if (Claims("sigkill", place)) {
    raise(SIGKILL);
  }
  if (Claims("sigsegv", place)) {
    raise(SIGSEGV);
  }
  if (Claims("sigstop", place)) {
    raise(SIGSTOP);
  }
  if (Claims("out-of-memory", place)) {
    TakeAllMemory();
  }
}

void FaultPlan::StepDone() {
  const int64_t step = ++step_;
  WriteLine(folder_ + "/ledger", O_APPEND,
            absl::StrFormat("%d %d %d %.6f\n", rank_, generation_, step, MonotonicSeconds()));
  absl::SleepFor(pace_);
}

void HangForever() {
  Mutex mutex;
  CondVar never;
  MutexLock lock(&mutex);
  while (true) {
    never.WaitWithTimeout(&mutex, absl::Hours(1));
  }
}

}  // namespace lasp::worker
