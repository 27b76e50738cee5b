#include "worker/engine/rank_monitor.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "proto/rpc/log.h"
#include "proto/rpc/proto_time.h"
#include "worker/engine/thread_stacks.h"

namespace lasp::worker {
namespace {

// Of each group in the log.
constexpr size_t kLoggedOperations = 64;
constexpr absl::Duration kStackPatience = absl::Milliseconds(200);

// Milliseconds ago; "-" for what has not come about.
std::string Ago(absl::Duration time, absl::Duration now) {
  return time == -absl::InfiniteDuration() ? "-"
                                           : absl::StrCat(absl::ToInt64Milliseconds(now - time));
}

// "57 receive with 1 2048 B 310/309/-": when it was issued, entered and left.
std::string Describe(const CollectiveRecord& record, absl::Duration now) {
  return absl::StrCat(record.number, " ", record.operation,
                      record.peer == kAllPeers ? "" : absl::StrCat(" with ", record.peer), " ",
                      record.bytes, " B ", Ago(record.issued, now), "/", Ago(record.begun, now),
                      "/", Ago(record.ended, now));
}

void LogOperations(const CollectiveLog& log, absl::Duration now) {
  const GroupPosition position = log.position();
  LASP_LOG(kWarning, "group",
           {{"group", position.group},
            {"issued", position.issued},
            {"begun", position.begun},
            {"ended", position.ended},
            {"under_way", position.operation.empty() ? "nothing" : position.operation},
            {"waits_for_rank", position.peer}});
  std::vector<CollectiveRecord> records = log.Last();
  if (records.size() > kLoggedOperations) {
    records.erase(records.begin(), records.end() - kLoggedOperations);
  }
  LASP_LOG(kWarning, "last operations: issued/entered/left, milliseconds ago",
           {{"group", position.group},
            {"operations",
             absl::StrJoin(records, "; ", [now](std::string* text, const CollectiveRecord& record) {
               absl::StrAppend(text, Describe(record, now));
             })}});
}

}  // namespace

RankMonitor::RankMonitor(RankChannel* channel, const CollectiveJournal* journal,
                         ProgressClock* progress, const StepLoad* load)
    : channel_(*channel), journal_(*journal), progress_(*progress), load_(*load) {
  thread_ = std::thread([this] { Run(); });
}

RankMonitor::~RankMonitor() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void RankMonitor::Run() {
  while (true) {
    Pulse();
    MutexLock lock(&mutex_);
    if (!stopping_) {
      changed_.WaitWithTimeout(&mutex_, kPulse);
    }
    if (stopping_) {
      return;
    }
  }
}

void RankMonitor::Pulse() {
  const ProgressClock::Reading reading = progress_.Read();
  lasp::internal::v1::FromRank message;
  lasp::v1::RankProgress& progress = *message.mutable_progress();
  *progress.mutable_idle() = ToProtoDuration(reading.idle);
  if (reading.limit < absl::InfiniteDuration()) {
    *progress.mutable_limit() = ToProtoDuration(reading.limit);
  }
  for (const CollectiveLog* const log : journal_.logs()) {
    const GroupPosition position = log->position();
    lasp::v1::GroupPosition& group = *progress.add_groups();
    group.set_group(position.group);
    group.set_issued(position.issued);
    group.set_begun(position.begun);
    group.set_ended(position.ended);
    group.set_operation(position.operation);
    group.set_peer(position.peer);
    group.set_awaited(position.awaited);
    for (const auto& [peer, counts] : position.traffic) {
      lasp::v1::PeerTraffic& traffic = *group.add_traffic();
      traffic.set_peer(peer);
      traffic.set_sent(counts.sent);
      traffic.set_received(counts.received);
    }
  }
  progress.set_busy_step_seconds(load_.mean());
  // An agent that is gone ends this process otherwise.
  channel_.Write(message).IgnoreError();
}

void RankMonitor::Dump() {
  LASP_LOG(kError, "the job hangs: what this rank was at follows", {});
  const absl::Duration now = SystemClock().Monotonic();
  for (const CollectiveLog* const log : journal_.logs()) {
    LogOperations(*log, now);
  }
  for (const ThreadStack& stack : ThreadStacks(kStackPatience)) {
    LASP_LOG(
        kWarning, "thread",
        {{"thread", stack.thread},
         {"name", stack.name},
         {"stack", stack.frames.empty() ? "does not answer" : absl::StrJoin(stack.frames, " < ")}});
  }
  lasp::internal::v1::FromRank message;
  message.mutable_dumped();
  channel_.Write(message).IgnoreError();
}

}  // namespace lasp::worker
