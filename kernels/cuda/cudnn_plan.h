// What runs a graph of cuDNN's operations on one device: an engine that takes it, compiled.
#pragma once

#include <cudnn_graph.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/cudnn_graph.h"
#include "kernels/cuda/cudnn_library.h"

namespace lasp::kernels::cuda {

// A device to make plans for.
class CudnnDevice {
 public:
  // `index` among the GPUs that the process sees. A description, cuDNN's JSON, is of a GPU that
  // need not be there: its plans do not run.
  CudnnDevice(const CudnnLibrary* library, int index, const std::string& description);

  cudnnStatus_t status() const { return objects_.status(); }

  CudnnObject properties() const { return properties_; }

 private:
  CudnnObjects objects_;
  CudnnObject properties_ = nullptr;
};

// Device memory of one of a graph's tensors; of a scalar host memory, which Run has read when it
// returns.
struct CudnnBinding {
  int64_t id;
  const void* data;
};

class CudnnPlan {
 public:
  // Of a graph that is not finished; all of one device. Not thread-safe.
  CudnnPlan(std::unique_ptr<CudnnGraph> graph, const CudnnDevice& device);

  cudnnStatus_t status() const { return graph_->objects().status(); }

  // Of the engine that cuDNN thinks fastest, in bytes.
  int64_t ProposedWorkspaceBytes();

  // Compiles the first of the engines that needs at most so many bytes, which takes seconds.
  // NOT_SUPPORTED where there is none.
  cudnnStatus_t Compile(int64_t most_workspace_bytes);

  // `workspace`: as many bytes, aligned to 256.
  cudnnStatus_t Run(cudnnHandle_t handle, const std::vector<CudnnBinding>& bindings,
                    void* workspace);

 private:
  int64_t WorkspaceBytes(CudnnObject engine);

  const std::unique_ptr<CudnnGraph> graph_;
  const CudnnObject properties_;
  std::vector<CudnnObject> engines_;  // the most promising first
  CudnnObject plan_ = nullptr;
};

}  // namespace lasp::kernels::cuda
