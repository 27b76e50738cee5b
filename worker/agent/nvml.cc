#include "worker/agent/nvml.h"

#include <dlfcn.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

std::string LoadingError() {
  const char* const text = dlerror();  // NOLINT(concurrency-mt-unsafe): per thread in glibc
  return text == nullptr ? "unknown error" : text;
}

template <typename Function>
absl::Status Resolve(void* handle, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(handle, name));
  return *function != nullptr
             ? absl::OkStatus()
             : absl::FailedPreconditionError(absl::StrCat(
                   "NVML has no ", name, ": install a newer NVIDIA driver (", LoadingError(), ")"));
}

absl::Status ResolveAll(void* handle, NvmlFunctions* functions) {
#define LASP_RESOLVE(name) LASP_RETURN_IF_ERROR(Resolve(handle, "nvml" #name, &functions->name))
  LASP_RESOLVE(Init_v2);
  LASP_RESOLVE(Shutdown);
  LASP_RESOLVE(ErrorString);
  LASP_RESOLVE(DeviceGetCount_v2);
  LASP_RESOLVE(DeviceGetHandleByIndex_v2);
  LASP_RESOLVE(DeviceGetUUID);
  LASP_RESOLVE(DeviceGetName);
  LASP_RESOLVE(DeviceGetMemoryInfo);
  LASP_RESOLVE(DeviceGetPciInfo_v3);
  LASP_RESOLVE(DeviceGetMigMode);
  LASP_RESOLVE(DeviceGetCudaComputeCapability);
  LASP_RESOLVE(DeviceGetNvLinkState);
  LASP_RESOLVE(DeviceGetNvLinkRemoteDeviceType);
  LASP_RESOLVE(DeviceGetNvLinkRemotePciInfo_v2);
  LASP_RESOLVE(DeviceGetP2PStatus);
#undef LASP_RESOLVE
  (void)Resolve(handle, "nvmlSystemGetDriverVersion", &functions->SystemGetDriverVersion);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Load(const std::string& library) {
  // Never closed: what a driver's library leaves to the end of a thread or of the process must
  // still be there.
  void* const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const std::string error = LoadingError();
    // A library of its own that is missing is another matter: then the driver is broken.
    const bool missing =
        absl::StartsWith(error, library) && absl::StrContains(error, "No such file or directory");
    return missing ? absl::NotFoundError(absl::StrCat("no NVIDIA driver: ", error))
                   : absl::FailedPreconditionError(absl::StrCat("cannot load NVML: ", error));
  }
  NvmlFunctions functions;
  LASP_RETURN_IF_ERROR(ResolveAll(handle, &functions));
  const int initialized = functions.Init_v2();
  if (initialized != kNvmlSuccess) {
    return absl::FailedPreconditionError(
        absl::StrCat("the NVIDIA driver does not work: ", functions.ErrorString(initialized)));
  }
  std::unique_ptr<Nvml> nvml(new Nvml());
  nvml->functions_ = functions;
  return nvml;
}

Nvml::~Nvml() { functions_.Shutdown(); }

std::string Nvml::DriverVersion() const {
  char version[kNvmlVersionSize] = {};
  const bool known = functions_.SystemGetDriverVersion != nullptr &&
                     functions_.SystemGetDriverVersion(version, sizeof(version)) == kNvmlSuccess;
  return known ? version : "";
}

absl::Status Nvml::Check(int result, absl::string_view call) const {
  return result == kNvmlSuccess ? absl::OkStatus()
                                : absl::FailedPreconditionError(
                                      absl::StrCat(call, ": ", functions_.ErrorString(result)));
}

}  // namespace lasp::worker
