// The slots an agent offers: one a GPU, and CPU slots.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lasp/v1/worker.pb.h"
#include "worker/agent/gpu_discovery.h"

namespace lasp::worker {

struct SlotOptions {
  // `all` that work, `none`, or indices and UUIDs separated by commas, which must all be there.
  std::string gpus = "all";
  // 0: none where GPUs are offered, else one a core.
  int cpu_slots = 0;
  // What ranks on GPUs run; without it no GPU is offered.
  std::string cuda_rank_binary;
  // Where the driver is asked, as dlopen takes it.
  std::string nvml_library;
};

// Those of `found` that `wanted` names, in its order. INVALID_ARGUMENT naming an entry that is none
// of them, or there twice.
absl::StatusOr<std::vector<HostGpu>> SelectGpus(absl::string_view wanted,
                                                const std::vector<HostGpu>& found);

// GPUs first, then CPU slots; index i is at i. Logs what it finds. GPUs that are asked for by name
// and cannot be offered are an error, `all` may also be none. INVALID_ARGUMENT for more than
// kMaxWorkerSlots. `report`, which may be null, gets what is to be said of the host's GPUs.
absl::StatusOr<std::vector<lasp::v1::Slot>> OfferSlots(const SlotOptions& options,
                                                       lasp::v1::HostReport* report = nullptr);

// BLAS and OpenMP threads of one rank, where so many slots share the cores.
int ThreadsOfARank(size_t slots);

}  // namespace lasp::worker
