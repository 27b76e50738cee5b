// How long a stream was in each phase, by events in the stream: the host waits for nothing.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "absl/status/status.h"
#include "worker/device/phase.h"

namespace lasp::worker {

// Not thread-safe. Use, and destroy, with the stream's device current.
class CudaPhaseClock {
 public:
  explicit CudaPhaseClock(cudaStream_t stream) : stream_(stream) {}

  ~CudaPhaseClock();
  CudaPhaseClock(const CudaPhaseClock&) = delete;
  CudaPhaseClock& operator=(const CudaPhaseClock&) = delete;

  // What is issued to the stream from here on belongs to `phase`; the phase before goes to
  // *previous.
  cudaError_t Enter(Phase phase, Phase* previous);
  // Since the last call, up to the last entered phase; the stream must have done all of it.
  cudaError_t Take(PhaseSeconds* seconds);

 private:
  struct Mark {
    cudaEvent_t event;
    Phase phase;  // begins here
  };

  cudaError_t AddMark(Phase phase);

  const cudaStream_t stream_;
  Phase phase_ = Phase::kOther;
  std::vector<Mark> marks_;         // in the stream's order
  std::vector<cudaEvent_t> spare_;  // used again: a step makes no new ones
};

}  // namespace lasp::worker
