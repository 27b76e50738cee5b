// cuDNN, which a program loads when it first has softmax attention to compute: it starts, and
// computes everything else, on hosts without it.
#pragma once

#include <cudnn_graph.h>

#include <string>

namespace lasp::kernels::cuda {

// Its functions that are used here, as cudnn_graph.h declares them.
struct CudnnLibrary {
  decltype(&::cudnnGetVersion) get_version = nullptr;
  decltype(&::cudnnGetErrorString) get_error_string = nullptr;
  decltype(&::cudnnGetLastErrorString) get_last_error_string = nullptr;
  decltype(&::cudnnCreate) create = nullptr;
  decltype(&::cudnnDestroy) destroy = nullptr;
  decltype(&::cudnnSetStream) set_stream = nullptr;
  decltype(&::cudnnBackendCreateDescriptor) create_descriptor = nullptr;
  decltype(&::cudnnBackendDestroyDescriptor) destroy_descriptor = nullptr;
  decltype(&::cudnnBackendSetAttribute) set_attribute = nullptr;
  decltype(&::cudnnBackendGetAttribute) get_attribute = nullptr;
  decltype(&::cudnnBackendFinalize) finalize = nullptr;
  decltype(&::cudnnBackendExecute) execute = nullptr;
};

struct CudnnLoading {
  const CudnnLibrary* library = nullptr;  // null: not loaded
  std::string failure = {};               // why, and how to mend it
};

// Loads it at the first call, for good. Thread-safe, but that the first call may write to the
// environment, and so comes before threads that read it: of cuDNN's parts those alone are used that
// compile kernels on the spot, as all of attention's are (CUDNN_LIB_CONFIG, where it is not set).
// The others are 300 MB of code, and need not be there.
const CudnnLoading& LoadCudnn();

}  // namespace lasp::kernels::cuda
