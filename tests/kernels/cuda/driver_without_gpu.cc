// A CUDA driver, libcuda.so.1, that takes code and runs none: cuDNN compiles its kernels with it
// where there is no GPU. What has to do with a device fails as where there is none.
#include <cstddef>

// NOLINTBEGIN(readability-identifier-naming): the names are CUDA's.
extern "C" {

namespace {

constexpr int kSuccess = 0;
constexpr int kNoDevice = 100;

// What code and its kernels are known by. Never read.
void* const kHandle = reinterpret_cast<void*>(8);

}  // namespace

#define LASP_ANSWERS(function, result) \
  __attribute__((visibility("default"))) int function() { return result; }

LASP_ANSWERS(cuInit, kSuccess)
LASP_ANSWERS(cuKernelSetAttribute, kSuccess)
LASP_ANSWERS(cuLibraryUnload, kSuccess)

LASP_ANSWERS(cuCtxGetCurrent, kNoDevice)
LASP_ANSWERS(cuCtxGetLimit, kNoDevice)
LASP_ANSWERS(cuCtxPopCurrent, kNoDevice)
LASP_ANSWERS(cuCtxPopCurrent_v2, kNoDevice)
LASP_ANSWERS(cuCtxPushCurrent, kNoDevice)
LASP_ANSWERS(cuCtxPushCurrent_v2, kNoDevice)
LASP_ANSWERS(cuDeviceGet, kNoDevice)
LASP_ANSWERS(cuDeviceGetCount, kNoDevice)
LASP_ANSWERS(cuDriverGetVersion, kNoDevice)
LASP_ANSWERS(cuGetExportTable, kNoDevice)
LASP_ANSWERS(cuKernelGetAttribute, kNoDevice)
LASP_ANSWERS(cuLaunchCooperativeKernel, kNoDevice)
LASP_ANSWERS(cuLaunchKernel, kNoDevice)
LASP_ANSWERS(cuLaunchKernelEx, kNoDevice)
LASP_ANSWERS(cuLibraryLoadFromFile, kNoDevice)
LASP_ANSWERS(cuLinkAddData, kNoDevice)
LASP_ANSWERS(cuLinkAddData_v2, kNoDevice)
LASP_ANSWERS(cuLinkComplete, kNoDevice)
LASP_ANSWERS(cuLinkCreate, kNoDevice)
LASP_ANSWERS(cuLinkCreate_v2, kNoDevice)
LASP_ANSWERS(cuLinkDestroy, kNoDevice)
LASP_ANSWERS(cuOccupancyMaxPotentialClusterSize, kNoDevice)
LASP_ANSWERS(cuStreamGetCtx, kNoDevice)

#undef LASP_ANSWERS

__attribute__((visibility("default"))) int cuLibraryLoadData(void** code) {
  *code = kHandle;
  return kSuccess;
}

__attribute__((visibility("default"))) int cuLibraryGetKernel(void** kernel) {
  *kernel = kHandle;
  return kSuccess;
}

__attribute__((visibility("default"))) int cuGetErrorName(int /*error*/, const char** name) {
  *name = "CUDA_ERROR_NO_DEVICE";
  return kSuccess;
}

__attribute__((visibility("default"))) int cuGetErrorString(int /*error*/, const char** text) {
  *text = "there is no GPU";
  return kSuccess;
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)
