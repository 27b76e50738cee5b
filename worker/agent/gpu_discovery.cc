#include "worker/agent/gpu_discovery.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "worker/agent/nvml.h"

namespace lasp::worker {
namespace {

// kernels/cuda is built for sm_90a, which runs on nothing older or newer.
constexpr int kComputeMajor = 9;
constexpr int kComputeMinor = 0;

struct Device {
  NvmlDevice handle = nullptr;
  NvmlPciInfo pci;
  // Links that do not end at a GPU: they lead to switches.
  int switch_links = 0;
  HostGpu gpu;
};

// Why the GPU cannot be used; empty where it can.
absl::StatusOr<std::string> ReasonAgainst(const Nvml& nvml, NvmlDevice handle) {
  unsigned int mig_mode = 0;
  unsigned int mig_after_reset = 0;
  const int mig = nvml->DeviceGetMigMode(handle, &mig_mode, &mig_after_reset);
  if (mig != kNvmlNotSupported) {
    LASP_RETURN_IF_ERROR(nvml.Check(mig, "nvmlDeviceGetMigMode"));
    if (mig_mode == kNvmlMigEnabled) {
      return "it is in MIG mode";
    }
  }
  int major = 0;
  int minor = 0;
  LASP_RETURN_IF_ERROR(nvml.Check(nvml->DeviceGetCudaComputeCapability(handle, &major, &minor),
                                  "nvmlDeviceGetCudaComputeCapability"));
  if (major != kComputeMajor || minor != kComputeMinor) {
    return absl::StrCat("its compute capability is ", major, ".", minor, ", the kernels are for ",
                        kComputeMajor, ".", kComputeMinor);
  }
  return "";
}

absl::Status Describe(const Nvml& nvml, Device* device) {
  char uuid[kNvmlUuidSize] = {};
  char name[kNvmlNameSize] = {};
  NvmlMemory memory;
  LASP_RETURN_IF_ERROR(
      nvml.Check(nvml->DeviceGetUUID(device->handle, uuid, sizeof(uuid)), "nvmlDeviceGetUUID"));
  LASP_RETURN_IF_ERROR(
      nvml.Check(nvml->DeviceGetName(device->handle, name, sizeof(name)), "nvmlDeviceGetName"));
  LASP_RETURN_IF_ERROR(
      nvml.Check(nvml->DeviceGetMemoryInfo(device->handle, &memory), "nvmlDeviceGetMemoryInfo"));
  LASP_RETURN_IF_ERROR(nvml.Check(nvml->DeviceGetPciInfo_v3(device->handle, &device->pci),
                                  "nvmlDeviceGetPciInfo_v3"));
  device->gpu.uuid = uuid;
  device->gpu.name = name;
  device->gpu.memory_bytes = static_cast<int64_t>(memory.total);
  device->gpu.pci_bus_id = device->pci.bus_id;
  return absl::OkStatus();
}

void AddProblem(unsigned int index, const HostGpu& gpu, absl::string_view problem,
                lasp::v1::HostReport* report) {
  if (report != nullptr) {
    report->add_gpu_problems(absl::StrCat("GPU ", index, gpu.uuid.empty() ? "" : " (", gpu.uuid,
                                          gpu.uuid.empty() ? "" : ")", ": ", problem));
  }
}

// Nothing where the GPU is not to be used.
std::optional<Device> Open(const Nvml& nvml, unsigned int index, lasp::v1::HostReport* report) {
  Device device;
  device.gpu.index = static_cast<int>(index);
  const int opened = nvml->DeviceGetHandleByIndex_v2(index, &device.handle);
  if (opened == kNvmlNoPermission) {
    // As it is for the GPUs of the host that a container was not given.
    LASP_LOG(kInfo, "a GPU is left out: no permission", {{"index", index}});
    return std::nullopt;
  }
  absl::Status status = nvml.Check(opened, "nvmlDeviceGetHandleByIndex_v2");
  if (status.ok()) {
    status = Describe(nvml, &device);
  }
  if (status.ok()) {
    const absl::StatusOr<std::string> reason = ReasonAgainst(nvml, device.handle);
    if (reason.ok() && !reason->empty()) {
      LASP_LOG(kInfo, absl::StrCat("a GPU is left out: ", *reason),
               {{"index", index}, {"uuid", device.gpu.uuid}, {"name", device.gpu.name}});
      AddProblem(index, device.gpu, *reason, report);
      return std::nullopt;
    }
    status = reason.status();
  }
  if (!status.ok()) {
    LASP_LOG(kWarning, "a GPU is left out: it does not work",
             {{"index", index}, {"error", status.message()}});
    AddProblem(index, device.gpu, status.message(), report);
    return std::nullopt;
  }
  return device;
}

bool SamePlace(const NvmlPciInfo& a, const NvmlPciInfo& b) {
  return a.domain == b.domain && a.bus == b.bus && a.device == b.device;
}

// Counts the links of one GPU: those that end at another one there, the others as switches'. A
// driver that does not tell where a link ends leaves it to the peers' reach, below.
void CountLinks(const Nvml& nvml, const std::vector<Device>& devices, Device* device) {
  for (unsigned int link = 0; link < kNvmlMaxLinks; ++link) {
    int active = 0;
    if (nvml->DeviceGetNvLinkState(device->handle, link, &active) != kNvmlSuccess ||
        active != kNvmlLinkActive) {
      continue;
    }
    int remote_kind = kNvmlRemoteGpu;
    NvmlPciInfo remote;
    if (nvml->DeviceGetNvLinkRemoteDeviceType(device->handle, link, &remote_kind) != kNvmlSuccess ||
        remote_kind != kNvmlRemoteGpu ||
        nvml->DeviceGetNvLinkRemotePciInfo_v2(device->handle, link, &remote) != kNvmlSuccess) {
      ++device->switch_links;
      continue;
    }
    const auto other = std::find_if(devices.begin(), devices.end(), [&remote](const Device& d) {
      return SamePlace(d.pci, remote);
    });
    if (other != devices.end()) {
      ++device->gpu.nvlinks[other->gpu.index];
    }
  }
}

bool ReachesByNvlink(const Nvml& nvml, const Device& a, const Device& b) {
  int status = -1;
  return nvml->DeviceGetP2PStatus(a.handle, b.handle, kNvmlPeerByNvlink, &status) == kNvmlSuccess &&
         status == kNvmlPeerOk;
}

void FindLinks(const Nvml& nvml, std::vector<Device>* devices) {
  for (Device& device : *devices) {
    CountLinks(nvml, *devices, &device);
  }
  for (Device& device : *devices) {
    for (const Device& other : *devices) {
      const int shared = std::min(device.switch_links, other.switch_links);
      if (device.handle != other.handle && shared > 0 && ReachesByNvlink(nvml, device, other)) {
        device.gpu.nvlinks[other.gpu.index] += shared;
      }
    }
  }
}

}  // namespace

absl::StatusOr<std::vector<HostGpu>> FindGpus(const std::string& library,
                                              lasp::v1::HostReport* report) {
  LASP_ASSIGN_OR_RETURN(const std::unique_ptr<Nvml> nvml, Nvml::Load(library));
  if (report != nullptr) {
    report->set_gpu_driver_version(nvml->DriverVersion());
  }
  unsigned int count = 0;
  LASP_RETURN_IF_ERROR(nvml->Check((*nvml)->DeviceGetCount_v2(&count), "nvmlDeviceGetCount_v2"));
  std::vector<Device> devices;
  for (unsigned int index = 0; index < count; ++index) {
    if (std::optional<Device> device = Open(*nvml, index, report)) {
      devices.push_back(*std::move(device));
    }
  }
  FindLinks(*nvml, &devices);
  std::vector<HostGpu> gpus;
  gpus.reserve(devices.size());
  for (Device& device : devices) {
    gpus.push_back(std::move(device.gpu));
  }
  return gpus;
}

}  // namespace lasp::worker
