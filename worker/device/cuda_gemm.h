// Matrix products on one stream, each by the algorithm that was measured to be the fastest for its
// shape. A record of the algorithms makes another run use the same: what a product gives depends on
// its algorithm, in the last bits.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda/gemm.h"

namespace lasp::worker {

// Not thread-safe. Use, and destroy, with the stream's device current.
class CudaGemm {
 public:
  static absl::StatusOr<std::unique_ptr<CudaGemm>> Create(cudaStream_t stream);
  ~CudaGemm();
  CudaGemm(const CudaGemm&) = delete;
  CudaGemm& operator=(const CudaGemm&) = delete;

  // What an algorithm may use.
  static constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

  // While measuring, the first product of a shape is computed many times over, by each algorithm,
  // which waits for the device and leaves in C what a single product would not, if it adds.
  // Otherwise an unknown shape gets the algorithm that the library would choose.
  void set_measuring(bool measuring) { measuring_ = measuring; }

  // `workspace`: kWorkspaceBytes, aligned to 256. INTERNAL where a product fails.
  absl::Status Run(const kernels::cuda::GemmShape& shape,
                   const kernels::cuda::GemmOperands& operands, void* workspace);

  // What has been chosen so far, as JSON, and its reverse: INVALID_ARGUMENT for what is not such a
  // record. One of another version of the library or another kind of GPU is passed over, and false
  // returned.
  std::string Record() const;
  absl::StatusOr<bool> Pin(absl::string_view record);

 private:
  struct Choice {
    kernels::cuda::GemmShape shape;
    kernels::cuda::GemmAlgorithm algorithm;
    double microseconds = 0;  // 0: not measured
  };

  CudaGemm(cublasLtHandle_t handle, cudaStream_t stream, std::string gpu)
      : handle_(handle), stream_(stream), gpu_(std::move(gpu)) {}

  absl::StatusOr<const Choice*> ChoiceOf(const kernels::cuda::GemmShape& shape,
                                         const kernels::cuda::GemmOperands& operands,
                                         void* workspace);
  absl::Status Measure(const kernels::cuda::GemmOperands& operands,
                       const std::vector<kernels::cuda::GemmAlgorithm>& candidates, void* workspace,
                       Choice* choice);

  const cublasLtHandle_t handle_;
  const cudaStream_t stream_;
  const std::string gpu_;
  bool measuring_ = false;
  std::vector<Choice> choices_;  // a few dozen at most
};

}  // namespace lasp::worker
