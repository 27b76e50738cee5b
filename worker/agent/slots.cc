#include "worker/agent/slots.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "proto/rpc/worker_limits.h"
#include "worker/agent/rank_environment.h"

namespace lasp::worker {
namespace {

using lasp::v1::Slot;

std::string Names(const std::vector<HostGpu>& gpus) {
  return gpus.empty() ? "none"
                      : absl::StrJoin(gpus, ", ", [](std::string* out, const HostGpu& gpu) {
                          absl::StrAppend(out, gpu.index, " (", gpu.uuid, ")");
                        });
}

absl::Status CheckRankBinary(const std::string& path) {
  if (access(path.c_str(), X_OK) == 0) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("GPU ranks need ", path, ": ", std::strerror(errno),
                   "; build lasp with CUDA, or name it with --cuda_rank_binary"));
}

absl::StatusOr<std::vector<HostGpu>> FindOffered(const SlotOptions& options,
                                                 lasp::v1::HostReport* report) {
  LASP_ASSIGN_OR_RETURN(const std::vector<HostGpu> found, FindGpus(options.nvml_library, report));
  LASP_ASSIGN_OR_RETURN(std::vector<HostGpu> selected, SelectGpus(options.gpus, found));
  if (!selected.empty()) {
    LASP_RETURN_IF_ERROR(CheckRankBinary(options.cuda_rank_binary));
  }
  return selected;
}

absl::StatusOr<std::vector<HostGpu>> OfferedGpus(const SlotOptions& options,
                                                 lasp::v1::HostReport* report) {
  if (options.gpus == "none") {
    return std::vector<HostGpu>();
  }
  absl::StatusOr<std::vector<HostGpu>> gpus = FindOffered(options, report);
  if (gpus.ok() || options.gpus != "all") {
    return gpus;
  }
  // A host without GPUs is nothing special.
  if (absl::IsNotFound(gpus.status())) {
    LASP_LOG(kInfo, "no GPUs are offered", {{"reason", gpus.status().message()}});
  } else {
    LASP_LOG(kWarning, "no GPUs are offered", {{"reason", gpus.status().message()}});
    if (report != nullptr) {
      report->add_gpu_problems(std::string(gpus.status().message()));
    }
  }
  return std::vector<HostGpu>();
}

Slot GpuSlot(int index, const HostGpu& gpu, const std::map<int, int>& slot_of_gpu) {
  Slot slot;
  slot.set_index(index);
  slot.set_kind(Slot::KIND_GPU);
  slot.mutable_gpu()->set_uuid(gpu.uuid);
  slot.mutable_gpu()->set_name(gpu.name);
  slot.mutable_gpu()->set_memory_bytes(gpu.memory_bytes);
  slot.mutable_gpu()->set_pci_bus_id(gpu.pci_bus_id);
  std::map<int, int> links;
  for (const auto& [other, count] : gpu.nvlinks) {
    if (const auto found = slot_of_gpu.find(other); found != slot_of_gpu.end()) {
      links[found->second] = count;
    }
  }
  for (const auto& [other_slot, count] : links) {
    lasp::v1::GpuLink* const link = slot.mutable_gpu()->add_links();
    link->set_slot(other_slot);
    link->set_nvlink_count(count);
  }
  return slot;
}

}  // namespace

absl::StatusOr<std::vector<HostGpu>> SelectGpus(absl::string_view wanted,
                                                const std::vector<HostGpu>& found) {
  if (wanted == "all") {
    return found;
  }
  std::vector<HostGpu> selected;
  for (const absl::string_view name : absl::StrSplit(wanted, ',')) {
    const auto names = [name](const HostGpu& gpu) {
      return gpu.uuid == std::string(name) || absl::StrCat(gpu.index) == name;
    };
    const auto gpu = std::find_if(found.begin(), found.end(), names);
    if (gpu == found.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--gpus: there is no GPU '", name, "' to offer; there are: ", Names(found)));
    }
    if (std::any_of(selected.begin(), selected.end(), names)) {
      return absl::InvalidArgumentError(absl::StrCat("--gpus: '", name, "' is there twice"));
    }
    selected.push_back(*gpu);
  }
  return selected;
}

absl::StatusOr<std::vector<Slot>> OfferSlots(const SlotOptions& options,
                                             lasp::v1::HostReport* report) {
  LASP_ASSIGN_OR_RETURN(const std::vector<HostGpu> gpus, OfferedGpus(options, report));
  std::map<int, int> slot_of_gpu;
  for (const HostGpu& gpu : gpus) {
    slot_of_gpu.emplace(gpu.index, static_cast<int>(slot_of_gpu.size()));
  }
  std::vector<Slot> slots;
  for (const HostGpu& gpu : gpus) {
    const int index = slot_of_gpu.at(gpu.index);
    slots.push_back(GpuSlot(index, gpu, slot_of_gpu));
    LASP_LOG(
        kInfo, "a GPU is offered",
        {{"slot", index}, {"uuid", gpu.uuid}, {"name", gpu.name}, {"memory", gpu.memory_bytes}});
  }
  const int cpu_slots =
      options.cpu_slots > 0 ? options.cpu_slots : (gpus.empty() ? AvailableCores() : 0);
  if (slots.size() + static_cast<size_t>(cpu_slots) > static_cast<size_t>(kMaxWorkerSlots)) {
    return absl::InvalidArgumentError(absl::StrCat("--cpu_slots: ", cpu_slots, " and ",
                                                   slots.size(), " GPUs are more than ",
                                                   kMaxWorkerSlots, " slots"));
  }
  for (int i = 0; i < cpu_slots; ++i) {
    Slot& slot = slots.emplace_back();
    slot.set_index(static_cast<int>(slots.size()) - 1);
    slot.set_kind(Slot::KIND_CPU);
  }
  return slots;
}

int ThreadsOfARank(size_t slots) {
  return std::max(1, AvailableCores() / std::max(1, static_cast<int>(slots)));
}

}  // namespace lasp::worker
