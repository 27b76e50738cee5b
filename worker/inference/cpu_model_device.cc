// lasp-model computes on the CPU, in fp32, on all cores that the process may run on.
#include <sched.h>

#include <algorithm>

#include "worker/inference/model_device.h"

namespace lasp::worker {
namespace {

int UsableCores() {
  cpu_set_t cores;
  return sched_getaffinity(0, sizeof cores, &cores) == 0 ? std::max(1, CPU_COUNT(&cores)) : 1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> OpenModelDevice(const lasp::v1::ModelSpec& /*model*/) {
  return CreateCpuBackend(DType::kFloat32, UsableCores());
}

const char* ModelDeviceName() { return "CPU"; }

const char* ModelProgramName() { return "lasp-model"; }

}  // namespace lasp::worker
