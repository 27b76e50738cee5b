#include "kernels/cuda/cudnn_library.h"

#include <dlfcn.h>

#include <cstdlib>

namespace lasp::kernels::cuda {
namespace {

// Newer minor versions of it keep what this one has.
constexpr char kLibrary[] = "libcudnn.so.9";
// The first that describes devices and says what engines need (cudnn_plan.cc).
constexpr size_t kOldestVersion = 90800;

template <typename Function>
bool Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

bool FindAll(void* library, CudnnLibrary* found) {
  return Find(library, "cudnnGetVersion", &found->get_version) &&
         Find(library, "cudnnGetErrorString", &found->get_error_string) &&
         Find(library, "cudnnGetLastErrorString", &found->get_last_error_string) &&
         Find(library, "cudnnCreate", &found->create) &&
         Find(library, "cudnnDestroy", &found->destroy) &&
         Find(library, "cudnnSetStream", &found->set_stream) &&
         Find(library, "cudnnBackendCreateDescriptor", &found->create_descriptor) &&
         Find(library, "cudnnBackendDestroyDescriptor", &found->destroy_descriptor) &&
         Find(library, "cudnnBackendSetAttribute", &found->set_attribute) &&
         Find(library, "cudnnBackendGetAttribute", &found->get_attribute) &&
         Find(library, "cudnnBackendFinalize", &found->finalize) &&
         Find(library, "cudnnBackendExecute", &found->execute);
}

CudnnLoading Load() {
  constexpr char kMend[] =
      ": install libcudnn9-cuda-13 and cuda-nvrtc-13-0, or those of this host's CUDA, or name "
      "their "
      "folder in LD_LIBRARY_PATH";
  ::setenv("CUDNN_LIB_CONFIG", "GRAPH_JIT_ONLY", /*overwrite=*/0);
  void* const library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const error = dlerror();
    return {.failure = std::string("cannot load cuDNN (") + (error == nullptr ? kLibrary : error) +
                       ")" + kMend};
  }
  static CudnnLibrary functions;
  if (!FindAll(library, &functions) || functions.get_version() < kOldestVersion) {
    return {.failure = std::string(kLibrary) + " is older than cuDNN 9.8" + kMend};
  }
  return {.library = &functions};
}

}  // namespace

const CudnnLoading& LoadCudnn() {
  static const CudnnLoading& loading = *new CudnnLoading(Load());
  return loading;
}

}  // namespace lasp::kernels::cuda
