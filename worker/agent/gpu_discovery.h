// Which GPUs this host has that ranks can use.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lasp/v1/worker.pb.h"

namespace lasp::worker {

struct HostGpu {
  // As nvidia-smi numbers them.
  int index = 0;
  // For example GPU-8f6d3c1e-…; names it for CUDA too.
  std::string uuid;
  std::string name;
  std::string pci_bus_id;
  int64_t memory_bytes = 0;
  // How many NVLinks lead to each of the other GPUs found, by index, directly or through switches;
  // without those that none leads to.
  std::map<int, int> nvlinks;
};

// Asks NVML, loaded from `library` (kNvmlLibrary, but in tests). What cannot be used is logged and
// left out: GPUs in MIG mode, of another architecture than the kernels', lost or closed to us.
// NOT_FOUND where no driver is installed, FAILED_PRECONDITION where it does not work.
// `report`, which may be null, gets the driver's version and a sentence for each GPU that is left
// out, but for those closed to us.
absl::StatusOr<std::vector<HostGpu>> FindGpus(const std::string& library,
                                              lasp::v1::HostReport* report = nullptr);

}  // namespace lasp::worker
