#include "client/doctor_checks.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/job_reference.h"
#include "client/time_text.h"

namespace lasp::client {
namespace {

using lasp::v1::ServerInfo;
using lasp::v1::Worker;

constexpr absl::Duration kSoon = absl::Hours(24 * 14);
constexpr absl::Duration kVerySoon = absl::Hours(24);
constexpr absl::Duration kTokenSoon = absl::Hours(24 * 7);
constexpr absl::Duration kClockWarning = absl::Seconds(2);
constexpr absl::Duration kClockFailure = absl::Seconds(30);
// Agents send a heartbeat every 2 s and are lost after 7 s without one.
constexpr absl::Duration kLateHeartbeat = absl::Seconds(5);
constexpr double kLowDisk = 0.10;
constexpr double kFullDisk = 0.03;
constexpr size_t kNamed = 5;

constexpr char kAgents[] = "agents";
constexpr char kAgentVersions[] = "agent versions";
constexpr char kAgentClocks[] = "agent clocks";
constexpr char kAgentDisks[] = "agent disks";
constexpr char kGpus[] = "gpus";

std::string Date(absl::Time time) {
  return absl::FormatTime("%Y-%m-%d %H:%M UTC", time, absl::UTCTimeZone());
}

std::string Seconds(absl::Duration duration) {
  return absl::StrFormat("%.2fs", absl::ToDoubleSeconds(duration));
}

std::string Bytes(int64_t bytes) {
  return absl::StrFormat("%.1f GiB", static_cast<double>(bytes) / (1 << 30));
}

// `a, b, c, d, e and 3 more`.
std::string Named(const std::vector<std::string>& names) {
  const size_t shown = std::min(names.size(), kNamed);
  const std::vector<std::string> first(names.begin(),
                                       names.begin() + static_cast<ptrdiff_t>(shown));
  return absl::StrCat(
      absl::StrJoin(first, ", "),
      names.size() > shown ? absl::StrCat(" and ", names.size() - shown, " more") : "");
}

std::string Count(size_t count, const char* thing) {
  return absl::StrCat(count, " ", thing, count == 1 ? "" : "s");
}

Verdict DiskVerdict(int64_t free, int64_t size) {
  const double share = size > 0 ? static_cast<double>(free) / static_cast<double>(size) : 1;
  return share < kFullDisk ? Verdict::kFail : share < kLowDisk ? Verdict::kWarn : Verdict::kOk;
}

Verdict ClockVerdict(absl::Duration offset) {
  const absl::Duration size = absl::AbsDuration(offset);
  return size > kClockFailure   ? Verdict::kFail
         : size > kClockWarning ? Verdict::kWarn
                                : Verdict::kOk;
}

// major * 1000 + minor; negative for what is no version.
int Release(const std::string& version) {
  const std::vector<std::string> parts = absl::StrSplit(version, '.');
  int major = 0;
  int minor = 0;
  if (parts.size() < 2 || !absl::SimpleAtoi(parts[0], &major) ||
      !absl::SimpleAtoi(parts[1], &minor) || major < 0 || minor < 0 || minor > 999) {
    return -1;
  }
  return major * 1000 + minor;
}

// One release apart is meant to work while an upgrade goes on.
Verdict VersionVerdict(const std::string& a, const std::string& b) {
  if (a == b) {
    return Verdict::kOk;
  }
  const bool near = Release(a) >= 0 && Release(b) >= 0 && std::abs(Release(a) - Release(b)) <= 1;
  return near ? Verdict::kWarn : Verdict::kFail;
}

// The worst verdict over agents, and who has it.
class Worst {
 public:
  void Add(Verdict verdict, const std::string& text) {
    if (verdict == Verdict::kOk) {
      return;
    }
    if (verdict > worst_) {
      worst_ = verdict;
    }
    texts_.push_back(text);
  }

  Finding ToFinding(const char* check, const std::string& fine, const std::string& mend) const {
    const bool ok = worst_ == Verdict::kOk;
    return {check, worst_, ok ? fine : Named(texts_), ok ? "" : mend};
  }

 private:
  Verdict worst_ = Verdict::kOk;
  std::vector<std::string> texts_;
};

Finding CheckLeases(const std::vector<Worker>& workers, absl::Time now) {
  Worst worst;
  size_t ready = 0;
  for (const Worker& worker : workers) {
    const std::string name = ShortName(worker.name());
    const absl::Duration age = now - FromProto(worker.last_heartbeat_time());
    if (worker.state() == Worker::STATE_LOST) {
      worst.Add(Verdict::kWarn,
                absl::StrCat(name, " is lost",
                             worker.has_last_heartbeat_time()
                                 ? absl::StrCat(", last heard of ", FormatAge(age), " ago")
                                 : ""));
    } else if (worker.state() != Worker::STATE_READY) {
      worst.Add(Verdict::kWarn, absl::StrCat(name, " drains"));
    } else {
      ++ready;
      if (age > kLateHeartbeat) {
        worst.Add(Verdict::kWarn,
                  absl::StrCat(name, " was last heard of ", FormatAge(age), " ago"));
      }
    }
  }
  if (ready == 0) {
    return {kAgents, Verdict::kFail,
            workers.empty() ? "no agent has ever connected" : "no agent takes ranks: no job starts",
            "start lasp-worker on a host, with --server of the coordinator's --worker_address; its "
            "log says why where it does not connect"};
  }
  return worst.ToFinding(
      kAgents, absl::StrCat(Count(ready, "agent"), " ready, all heard of within 5s"),
      "a lost agent: look at lasp-worker and the network of its host; one that drains: 'lasp drain "
      "NAME --undo' takes it back");
}

Finding CheckAgentVersions(const std::vector<Worker>& workers, const std::string& server) {
  Worst worst;
  for (const Worker& worker : workers) {
    worst.Add(VersionVerdict(worker.version(), server),
              absl::StrCat(ShortName(worker.name()), " is ", worker.version()));
  }
  return worst.ToFinding(kAgentVersions, absl::StrCat("all are ", server, " as the coordinator"),
                         absl::StrCat("drain these agents one by one and install ", server,
                                      "; one release apart works meanwhile"));
}

Finding CheckAgentClocks(const std::vector<Worker>& workers) {
  Worst worst;
  size_t told = 0;
  for (const Worker& worker : workers) {
    if (!worker.host_report().has_clock_offset()) {
      continue;
    }
    ++told;
    const absl::Duration offset = FromProto(worker.host_report().clock_offset());
    worst.Add(ClockVerdict(offset),
              absl::StrCat(ShortName(worker.name()), " is ", Seconds(absl::AbsDuration(offset)),
                           offset > absl::ZeroDuration() ? " ahead" : " behind"));
  }
  return worst.ToFinding(
      kAgentClocks,
      absl::StrCat(Count(told, "clock"), " within 2s of the coordinator's",
                   told < workers.size() ? absl::StrCat("; ", Count(workers.size() - told, "agent"),
                                                        " of an older "
                                                        "release did not say")
                                         : ""),
      "run chrony or systemd-timesyncd there: times of logs and steps are wrong");
}

Finding CheckAgentDisks(const std::vector<Worker>& workers) {
  Worst worst;
  size_t told = 0;
  for (const Worker& worker : workers) {
    const auto& report = worker.host_report();
    if (report.work_disk_size_bytes() <= 0) {
      continue;
    }
    ++told;
    worst.Add(DiskVerdict(report.work_disk_free_bytes(), report.work_disk_size_bytes()),
              absl::StrCat(ShortName(worker.name()), " has ", Bytes(report.work_disk_free_bytes()),
                           " of ", Bytes(report.work_disk_size_bytes()), " free"));
  }
  return worst.ToFinding(kAgentDisks, absl::StrCat(Count(told, "agent"), " with room for logs"),
                         "make room under the agent's --work_dir, or lower its --retain_log_bytes");
}

Finding CheckGpus(const std::vector<Worker>& workers) {
  Worst worst;
  size_t gpus = 0;
  std::map<std::string, int> names;
  std::set<std::string> drivers;
  for (const Worker& worker : workers) {
    for (const auto& slot : worker.slots()) {
      if (slot.has_gpu()) {
        ++gpus;
        ++names[slot.gpu().name()];
      }
    }
    const auto& report = worker.host_report();
    if (!report.gpu_driver_version().empty()) {
      drivers.insert(report.gpu_driver_version());
    }
    for (const std::string& problem : report.gpu_problems()) {
      worst.Add(Verdict::kWarn, absl::StrCat(ShortName(worker.name()), ": ", problem));
    }
  }
  if (drivers.size() > 1) {
    worst.Add(Verdict::kWarn, absl::StrCat("drivers differ: ", absl::StrJoin(drivers, ", ")));
  }
  std::vector<std::string> sorts;
  sorts.reserve(names.size());
  for (const auto& [name, count] : names) {
    sorts.push_back(absl::StrCat(count, " x ", name));
  }
  const std::string fine =
      gpus == 0 ? "no agent offers a GPU; jobs run on CPUs"
                : absl::StrCat(absl::StrJoin(sorts, ", "),
                               drivers.empty() ? "" : absl::StrCat(", driver ", *drivers.begin()));
  return worst.ToFinding(kGpus, fine,
                         "look at nvidia-smi and dmesg there; ranks use the GPUs that work");
}

}  // namespace

const char* VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kWarn:
      return "warn";
    case Verdict::kFail:
      return "fail";
    case Verdict::kSkipped:
      return "skipped";
  }
  return "";
}

Finding CheckCertificateEnd(const std::string& what, absl::Time end, absl::Time now) {
  Finding finding{.check = what, .verdict = Verdict::kOk, .message = {}, .mend = {}};
  if (now >= end) {
    finding.verdict = Verdict::kFail;
    finding.message = absl::StrCat("ended on ", Date(end));
  } else {
    finding.message = absl::StrCat("good until ", Date(end), " (", FormatAge(end - now), ")");
    finding.verdict = end - now < kVerySoon ? Verdict::kFail
                      : end - now < kSoon   ? Verdict::kWarn
                                            : Verdict::kOk;
  }
  if (finding.verdict != Verdict::kOk) {
    finding.mend = "'deploy/credentials rotate' makes a new one, which is read without a restart";
  }
  return finding;
}

Finding CheckCertificateTrust(const std::string& problem) {
  if (problem.empty()) {
    return {"trust", Verdict::kOk, "its certificate is of the authority in --tls_ca", ""};
  }
  return {"trust", Verdict::kFail, absl::StrCat("its certificate is not believed: ", problem),
          "name the ca.crt of the coordinator's own deploy/credentials with --tls_ca, and the host "
          "as its certificate does with --server"};
}

Finding CheckToken(const absl::Status& status, bool has_token, const ServerInfo& info,
                   absl::Time now) {
  if (absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status)) {
    return {
        "token", Verdict::kFail, std::string(status.message()),
        "name a good one with --token_file or LASP_TOKEN; 'deploy/credentials token' makes one"};
  }
  if (!status.ok()) {
    return {"token", Verdict::kSkipped, "the coordinator gave no answer", ""};
  }
  if (!has_token) {
    return {"token", Verdict::kOk, "none is asked for: every user of its host is admin", ""};
  }
  if (!info.has_token_expire_time()) {
    return {"token", Verdict::kOk, "accepted, without an end", ""};
  }
  const absl::Time end = FromProto(info.token_expire_time());
  const bool soon = end - now < kTokenSoon;
  return {"token", soon ? Verdict::kWarn : Verdict::kOk,
          absl::StrCat("accepted until ", Date(end), " (", FormatAge(end - now), ")"),
          soon ? "ask the operator for a new one before it ends" : ""};
}

Finding CheckVersions(const std::string& client, const std::string& server) {
  const Verdict verdict = VersionVerdict(client, server);
  return {"versions", verdict,
          verdict == Verdict::kOk
              ? absl::StrCat("client and coordinator are ", client)
              : absl::StrCat("the client is ", client, ", the coordinator ", server),
          verdict == Verdict::kOk ? "" : absl::StrCat("install lasp ", server, " here")};
}

Finding CheckClock(absl::Duration offset, absl::Duration doubt) {
  const Verdict verdict = ClockVerdict(
      std::max(absl::ZeroDuration(), absl::AbsDuration(offset) - absl::AbsDuration(doubt)));
  return {"clock", verdict,
          absl::StrCat("the coordinator's is ", Seconds(absl::AbsDuration(offset)),
                       offset > absl::ZeroDuration() ? " ahead of" : " behind", " this host's"),
          verdict == Verdict::kOk
              ? ""
              : "run chrony or systemd-timesyncd on both: ages and --since are wrong, and "
                "certificates may seem to have ended"};
}

Finding CheckStore(const ServerInfo& info) {
  if (!info.store_error().empty()) {
    return {"store", Verdict::kFail, absl::StrCat("cannot be written: ", info.store_error()),
            "make room or mend the disk under the coordinator's --data_dir; running jobs go on"};
  }
  if (info.store_disk_size_bytes() <= 0) {
    return {"store", Verdict::kOk,
            "can be written; the coordinator did not say how full its disk is", ""};
  }
  const Verdict verdict = DiskVerdict(info.store_disk_free_bytes(), info.store_disk_size_bytes());
  return {"store", verdict,
          absl::StrCat("can be written, ", Bytes(info.store_disk_free_bytes()), " of ",
                       Bytes(info.store_disk_size_bytes()), " free"),
          verdict == Verdict::kOk ? ""
                                  : "make room under the coordinator's --data_dir, or lower "
                                    "--retain_finished and --max_log_bytes"};
}

std::vector<Finding> CheckAgents(const std::vector<Worker>& workers, const ServerInfo& info) {
  std::vector<Worker> present;
  std::copy_if(workers.begin(), workers.end(), std::back_inserter(present),
               [](const Worker& worker) { return worker.state() != Worker::STATE_LOST; });
  std::vector<Finding> findings = {CheckLeases(workers, FromProto(info.time()))};
  if (present.empty()) {
    for (Finding& skipped : SkippedAgentChecks("there is no agent")) {
      if (skipped.check != kAgents) {
        findings.push_back(std::move(skipped));
      }
    }
    return findings;
  }
  findings.push_back(CheckAgentVersions(present, info.version()));
  findings.push_back(CheckAgentClocks(present));
  findings.push_back(CheckAgentDisks(present));
  findings.push_back(CheckGpus(present));
  return findings;
}

std::vector<Finding> SkippedAgentChecks(const std::string& why) {
  std::vector<Finding> findings;
  findings.reserve(5);
  for (const char* check : {kAgents, kAgentVersions, kAgentClocks, kAgentDisks, kGpus}) {
    findings.push_back({check, Verdict::kSkipped, why, ""});
  }
  return findings;
}

}  // namespace lasp::client
