#include "client/job_wait.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/enum_names.h"
#include "client/job_reference.h"
#include "client/time_text.h"
#include "client/utf8.h"

namespace lasp::client {
namespace {

using lasp::v1::SlotWait;
using lasp::v1::TrainingJob;

std::string Slots(int count, const std::string& kind) {
  return absl::StrCat(count, " ", kind, count == 1 ? " slot" : " slots");
}

std::string Needs(const TrainingJob& job, const std::string& kind) {
  const int group = std::max(1, job.spec().parallelism().sequence_parallel().size());
  std::string text = absl::StrCat(Slots(job.slot_wait().needed_slots(), kind),
                                  job.slot_wait().needed_slots() == 1 ? "" : ", all at once");
  if (group > 1) {
    absl::StrAppend(&text, "; each SP group of ", group, " on one worker where it fits");
  }
  return text;
}

std::string ThereAre(const SlotWait& wait, const std::string& kind) {
  std::string text =
      absl::StrCat(Slots(wait.free_slots() + wait.busy_slots() + wait.away_slots(), kind), ": ",
                   wait.free_slots(), " free");
  if (wait.kept_slots() > 0) {
    absl::StrAppend(&text, " (", wait.kept_slots(), " kept for jobs about to start again)");
  }
  absl::StrAppend(&text, ", ", wait.busy_slots(), " busy");
  if (wait.away_slots() > 0) {
    absl::StrAppend(&text, ", ", wait.away_slots(),
                    " on workers that are lost, not connected or draining");
  }
  return text;
}

std::string Position(int position, const std::string& kind) {
  return position <= 1 ? absl::StrCat("the first in the ", kind, " queue")
                       : absl::StrFormat("%d in the %s queue: %d %s before it", position, kind,
                                         position - 1, position == 2 ? "job starts" : "jobs start");
}

// The constraint that holds it.
std::string BlockedBy(const TrainingJob& job, const std::string& kind, absl::Time now) {
  const SlotWait& wait = job.slot_wait();
  if (wait.has_earliest_start_time()) {
    const absl::Duration rest = FromProto(wait.earliest_start_time()) - now;
    return rest > absl::ZeroDuration()
               ? absl::StrCat("the pause after its last failure: ", FormatAge(rest), " more")
               : "the pause after its last failure, which is over";
  }
  if (job.reason() == "NO_WORKERS") {
    return "no worker takes ranks: 'lasp workers' shows them, lasp-worker starts one";
  }
  if (job.reason() == "NO_CAPACITY") {
    return "the size of the cluster: even an empty one has too few slots of one kind; the job "
           "holds nobody back, and starts when workers join";
  }
  if (job.reason() == "WAITING_FOR_TURN") {
    return "its turn: jobs start first in, first out, and the one in front does not fit yet";
  }
  const int missing = wait.needed_slots() - (wait.free_slots() - wait.kept_slots());
  return missing > 0 ? absl::StrCat(Slots(missing, kind), " that must become free")
                     : "nothing any more: it is about to start";
}

}  // namespace

std::string DescribeWait(const TrainingJob& job, absl::Time now) {
  const bool waits =
      job.state() == TrainingJob::STATE_QUEUED || job.state() == TrainingJob::STATE_RECOVERING;
  if (!waits || !job.has_slot_wait()) {
    return "";
  }
  const SlotWait& wait = job.slot_wait();
  const std::string kind =
      ShortEnumName(*lasp::v1::TrainingSpec::Device_descriptor(), wait.device());
  std::string text = absl::StrCat(
      "needs       ", Needs(job, kind), "\nthere are   ", ThereAre(wait, kind), "\nposition    ",
      Position(wait.position(), kind), "\nblocked by  ", BlockedBy(job, kind, now), "\n");
  if (!wait.avoided_workers().empty()) {
    std::vector<std::string> workers;
    workers.reserve(static_cast<size_t>(wait.avoided_workers_size()));
    for (const std::string& worker : wait.avoided_workers()) {
      workers.push_back(Printable(ShortName(worker)));
    }
    absl::StrAppend(&text, "avoids      ", absl::StrJoin(workers, ", "),
                    ", which a rank of it called suspect, unless nothing else fits\n");
  }
  return text;
}

}  // namespace lasp::client
