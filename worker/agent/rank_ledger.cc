#include "worker/agent/rank_ledger.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/unique_fd.h"
#include "worker/agent/rank_process.h"

namespace lasp::worker {
namespace {

std::string BootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id.empty() ? "unknown" : id;
}

struct Entry {
  pid_t pid = -1;
  uint64_t start_ticks = 0;
  std::string boot_id;
};

absl::StatusOr<Entry> ReadEntry(const std::filesystem::path& path) {
  std::ifstream file(path);
  Entry entry;
  if (!(file >> entry.pid >> entry.start_ticks >> entry.boot_id) || entry.pid <= 1) {
    return absl::DataLossError(absl::StrCat(path.string(), " is not a rank's record"));
  }
  return entry;
}

bool StillRuns(const Entry& entry) {
  const absl::StatusOr<uint64_t> ticks = ProcessStartTicks(entry.pid);
  return ticks.ok() && *ticks == entry.start_ticks;
}

// Opened before the start time is compared, so that a pid used again in between is not killed.
absl::Status KillAndWait(const Entry& entry, absl::Duration timeout) {
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, entry.pid, 0)));
  if (!pidfd.valid() || !StillRuns(entry)) {
    return absl::OkStatus();
  }
  KillRankProcess(entry.pid);
  pollfd ended{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
  const absl::Duration deadline = SystemClock().Monotonic() + timeout;
  for (;;) {
    const absl::Duration left = deadline - SystemClock().Monotonic();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(
          absl::StrCat("rank process ", entry.pid, " of an earlier agent does not die"));
    }
    if (poll(&ended, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1) > 0) {
      return absl::OkStatus();
    }
  }
}

}  // namespace

absl::StatusOr<uint64_t> ProcessStartTicks(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::ostringstream text;
  text << file.rdbuf();
  const std::string stat = text.str();
  // After the name, which may hold spaces and brackets: state is field 3, start time field 22.
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) {
    return absl::NotFoundError(absl::StrCat("no process ", pid));
  }
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::string_view(stat).substr(name_end + 1), ' ', absl::SkipEmpty());
  uint64_t ticks = 0;
  if (fields.size() < 20 || fields[0] == "Z" || !absl::SimpleAtoi(fields[19], &ticks)) {
    return absl::NotFoundError(absl::StrCat("no live process ", pid));
  }
  return ticks;
}

absl::Status RankLedger::Record(pid_t pid) const {
  const absl::StatusOr<uint64_t> ticks = ProcessStartTicks(pid);
  if (!ticks.ok()) {
    return absl::OkStatus();  // already gone: nothing to find later
  }
  const std::string path = absl::StrCat(folder_, "/", pid);
  std::ofstream file(path);
  file << pid << ' ' << *ticks << ' ' << BootId() << '\n';
  file.close();
  if (!file) {
    return absl::UnavailableError(absl::StrCat("cannot write ", path));
  }
  return absl::OkStatus();
}

void RankLedger::Erase(pid_t pid) const { std::remove(absl::StrCat(folder_, "/", pid).c_str()); }

absl::StatusOr<int> RankLedger::KillLeftovers(absl::Duration timeout) const {
  const std::string boot_id = BootId();
  int killed = 0;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(folder_, error)) {
    const absl::StatusOr<Entry> entry = ReadEntry(file.path());
    if (entry.ok() && entry->boot_id == boot_id && StillRuns(*entry)) {
      LASP_LOG(kWarning, "killing a rank that an earlier agent left", {{"pid", entry->pid}});
      LASP_RETURN_IF_ERROR(KillAndWait(*entry, timeout));
      ++killed;
    }
    std::error_code ignored;
    std::filesystem::remove(file.path(), ignored);
  }
  if (error) {
    return absl::UnavailableError(absl::StrCat("cannot read ", folder_, ": ", error.message()));
  }
  return killed;
}

}  // namespace lasp::worker
