// The driver's management library, NVML, as far as the agent needs it. It is loaded at run time, so
// that the agent starts where there is no driver. The declarations are those of NVML's nvml.h
// (API version 12; https://docs.nvidia.com/deploy/nvml-api), whose versioned functions and structs
// do not change.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lasp::worker {

inline constexpr char kNvmlLibrary[] = "libnvidia-ml.so.1";

// nvmlReturn_t, what we tell apart of it.
enum NvmlReturn : int {
  kNvmlSuccess = 0,
  kNvmlNotSupported = 3,
  kNvmlNoPermission = 4,
  kNvmlDriverNotLoaded = 9,
};

// nvmlDevice_t.
using NvmlDevice = struct nvmlDevice_st*;

// nvmlMemory_t, in bytes.
struct NvmlMemory {
  uint64_t total = 0;
  uint64_t free = 0;
  uint64_t used = 0;
};

// nvmlPciInfo_t.
struct NvmlPciInfo {
  char bus_id_legacy[16] = {};
  unsigned int domain = 0;
  unsigned int bus = 0;
  unsigned int device = 0;
  unsigned int pci_device_id = 0;
  unsigned int pci_subsystem_id = 0;
  char bus_id[32] = {};
};

static_assert(sizeof(NvmlMemory) == 24 && sizeof(NvmlPciInfo) == 68);

inline constexpr unsigned int kNvmlMaxLinks = 18;     // NVML_NVLINK_MAX_LINKS
inline constexpr unsigned int kNvmlNameSize = 96;     // NVML_DEVICE_NAME_V2_BUFFER_SIZE
inline constexpr unsigned int kNvmlUuidSize = 96;     // NVML_DEVICE_UUID_V2_BUFFER_SIZE
inline constexpr unsigned int kNvmlVersionSize = 80;  // NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE
inline constexpr unsigned int kNvmlMigEnabled = 1;    // NVML_DEVICE_MIG_ENABLE
inline constexpr int kNvmlLinkActive = 1;             // NVML_FEATURE_ENABLED
inline constexpr int kNvmlRemoteGpu = 0;              // NVML_NVLINK_DEVICE_TYPE_GPU
inline constexpr int kNvmlPeerByNvlink = 2;           // NVML_P2P_CAPS_INDEX_NVLINK
inline constexpr int kNvmlPeerOk = 0;                 // NVML_P2P_STATUS_OK

// NVML's functions by their names. C's enums are ints in its ABI.
struct NvmlFunctions {
  int (*Init_v2)() = nullptr;
  int (*Shutdown)() = nullptr;
  const char* (*ErrorString)(int) = nullptr;
  int (*DeviceGetCount_v2)(unsigned int*) = nullptr;
  int (*DeviceGetHandleByIndex_v2)(unsigned int, NvmlDevice*) = nullptr;
  int (*DeviceGetUUID)(NvmlDevice, char*, unsigned int) = nullptr;
  int (*DeviceGetName)(NvmlDevice, char*, unsigned int) = nullptr;
  int (*DeviceGetMemoryInfo)(NvmlDevice, NvmlMemory*) = nullptr;
  int (*DeviceGetPciInfo_v3)(NvmlDevice, NvmlPciInfo*) = nullptr;
  int (*DeviceGetMigMode)(NvmlDevice, unsigned int*, unsigned int*) = nullptr;
  int (*DeviceGetCudaComputeCapability)(NvmlDevice, int*, int*) = nullptr;
  int (*DeviceGetNvLinkState)(NvmlDevice, unsigned int, int*) = nullptr;
  int (*DeviceGetNvLinkRemoteDeviceType)(NvmlDevice, unsigned int, int*) = nullptr;
  int (*DeviceGetNvLinkRemotePciInfo_v2)(NvmlDevice, unsigned int, NvmlPciInfo*) = nullptr;
  int (*DeviceGetP2PStatus)(NvmlDevice, NvmlDevice, int, int*) = nullptr;
  // Null where NVML has none: only people want it.
  int (*SystemGetDriverVersion)(char*, unsigned int) = nullptr;
};

// The library, initialised. Not thread-safe here.
class Nvml {
 public:
  // `library` as dlopen takes it. NOT_FOUND where there is none: no driver is installed;
  // FAILED_PRECONDITION where the driver does not work or is too old.
  static absl::StatusOr<std::unique_ptr<Nvml>> Load(const std::string& library);
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  const NvmlFunctions* operator->() const { return &functions_; }

  // For example 580.65.06; empty where it cannot be told.
  std::string DriverVersion() const;

  // FAILED_PRECONDITION that names the call where `result` is not kNvmlSuccess.
  absl::Status Check(int result, absl::string_view call) const;

 private:
  Nvml() = default;

  NvmlFunctions functions_;
};

}  // namespace lasp::worker
