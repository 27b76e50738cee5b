#include "client/worker_table.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/enum_names.h"
#include "client/job_reference.h"
#include "client/time_text.h"

namespace lasp::client {
namespace {

using lasp::v1::Slot;
using lasp::v1::Worker;

std::string JobsOn(const Worker& worker) {
  std::vector<std::string> jobs;
  for (const Slot& slot : worker.slots()) {
    if (!slot.training_job().empty()) {
      jobs.push_back(ShortName(slot.training_job()));
    }
  }
  std::sort(jobs.begin(), jobs.end());
  jobs.erase(std::unique(jobs.begin(), jobs.end()), jobs.end());
  return jobs.empty() ? "-" : absl::StrJoin(jobs, ",");
}

std::string KindsOf(const Worker& worker) {
  std::vector<std::string> kinds;
  for (const Slot& slot : worker.slots()) {
    std::string kind = ShortEnumName(*Slot::Kind_descriptor(), slot.kind());
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) {
      kinds.push_back(std::move(kind));
    }
  }
  return kinds.empty() ? "-" : absl::StrJoin(kinds, ",");
}

bool HasGpus(const Worker& worker) {
  return std::any_of(worker.slots().begin(), worker.slots().end(),
                     [](const Slot& slot) { return slot.has_gpu(); });
}

std::string MemoryOf(const lasp::v1::Gpu& gpu) {
  constexpr double kGibibyte = 1 << 30;
  return absl::StrFormat("%.0f GiB", static_cast<double>(gpu.memory_bytes()) / kGibibyte);
}

// `4 x NVIDIA H200 (140 GiB)`, for each sort of GPU.
std::string GpusOf(const Worker& worker) {
  std::map<std::string, int> counts;
  for (const Slot& slot : worker.slots()) {
    if (slot.has_gpu()) {
      ++counts[absl::StrCat(slot.gpu().name(), " (", MemoryOf(slot.gpu()), ")")];
    }
  }
  std::vector<std::string> sorts;
  sorts.reserve(counts.size());
  for (const auto& [sort, count] : counts) {
    sorts.push_back(absl::StrCat(count, " x ", sort));
  }
  return sorts.empty() ? "-" : absl::StrJoin(sorts, ", ");
}

Style WorkerStyle(Worker::State state) {
  return state == Worker::STATE_READY  ? Style::kGood
         : state == Worker::STATE_LOST ? Style::kBad
                                       : Style::kPlain;
}

Cell StateOf(const Worker& worker) {
  const std::string state = ShortEnumName(*Worker::State_descriptor(), worker.state());
  return worker.has_quarantine_end_time() && worker.state() == Worker::STATE_READY
             ? Cell{absl::StrCat(state, ", QUARANTINED"), Style::kBad}
             : Cell{state, WorkerStyle(worker.state())};
}

}  // namespace

Table WorkerTable(const std::vector<Worker>& workers, bool wide, absl::Time now) {
  const bool gpus = std::any_of(workers.begin(), workers.end(), HasGpus);
  std::vector<Column> columns = {{"NAME"}, {"STATE"}, {"FREE", true}, {"SLOTS", true}};
  if (gpus) {
    columns.push_back({"GPUS"});
  }
  columns.push_back({"JOBS"});
  columns.push_back({"AGE", true});
  if (wide) {
    for (const char* header : {"HOST", "KIND", "LAST SEEN", "VERSION", "INCARNATION"}) {
      columns.push_back({header});
    }
  }
  Table table(std::move(columns));
  for (const Worker& worker : workers) {
    const auto taken = std::count_if(worker.slots().begin(), worker.slots().end(),
                                     [](const auto& slot) { return !slot.training_job().empty(); });
    std::vector<Cell> row = {ShortName(worker.name()), StateOf(worker),
                             absl::StrCat(worker.slot_count() - taken),
                             absl::StrCat(worker.slot_count())};
    if (gpus) {
      row.emplace_back(GpusOf(worker));
    }
    row.emplace_back(JobsOn(worker));
    row.emplace_back(FormatAge(now - FromProto(worker.register_time())));
    if (wide) {
      row.emplace_back(worker.host_name());
      row.emplace_back(KindsOf(worker));
      row.emplace_back(
          absl::StrCat(FormatAge(now - FromProto(worker.last_heartbeat_time())), " ago"));
      row.emplace_back(worker.version());
      row.emplace_back(worker.incarnation());
    }
    table.AddRow(std::move(row));
  }
  return table;
}

Table GpuTable(const std::vector<Worker>& workers) {
  Table table({{"WORKER"},
               {"SLOT", true},
               {"GPU"},
               {"MEMORY", true},
               {"BUS"},
               {"UUID"},
               {"NVLINKS TO SLOTS"},
               {"JOB"}});
  for (const Worker& worker : workers) {
    for (const Slot& slot : worker.slots()) {
      if (!slot.has_gpu()) {
        continue;
      }
      std::vector<std::string> links;
      for (const auto& link : slot.gpu().links()) {
        links.push_back(absl::StrCat(link.nvlink_count(), "->", link.slot()));
      }
      table.AddRow({ShortName(worker.name()), absl::StrCat(slot.index()), slot.gpu().name(),
                    MemoryOf(slot.gpu()), slot.gpu().pci_bus_id(), slot.gpu().uuid(),
                    links.empty() ? "-" : absl::StrJoin(links, " "),
                    slot.training_job().empty() ? "-" : ShortName(slot.training_job())});
    }
  }
  return table;
}

}  // namespace lasp::client
