#include "worker/device/cuda_phase_clock.h"

#include <utility>

namespace lasp::worker {

CudaPhaseClock::~CudaPhaseClock() {
  for (const Mark& mark : marks_) {
    (void)cudaEventDestroy(mark.event);
  }
  for (const cudaEvent_t event : spare_) {
    (void)cudaEventDestroy(event);
  }
}

cudaError_t CudaPhaseClock::AddMark(Phase phase) {
  cudaEvent_t event = nullptr;
  if (spare_.empty()) {
    if (const cudaError_t error = cudaEventCreate(&event); error != cudaSuccess) {
      return error;
    }
  } else {
    event = spare_.back();
    spare_.pop_back();
  }
  marks_.push_back({event, phase});
  return cudaEventRecord(event, stream_);
}

cudaError_t CudaPhaseClock::Enter(Phase phase, Phase* previous) {
  *previous = std::exchange(phase_, phase);
  return AddMark(phase);
}

cudaError_t CudaPhaseClock::Take(PhaseSeconds* seconds) {
  *seconds = {};
  if (const cudaError_t error = AddMark(phase_); error != cudaSuccess) {
    return error;
  }
  if (const cudaError_t error = cudaEventSynchronize(marks_.back().event); error != cudaSuccess) {
    return error;
  }
  for (size_t i = 0; i + 1 < marks_.size(); ++i) {
    float milliseconds = 0;
    if (const cudaError_t error =
            cudaEventElapsedTime(&milliseconds, marks_[i].event, marks_[i + 1].event);
        error != cudaSuccess) {
      return error;
    }
    (*seconds)[marks_[i].phase] += 1e-3 * static_cast<double>(milliseconds);
    spare_.push_back(marks_[i].event);
  }
  marks_ = {marks_.back()};
  return cudaSuccess;
}

}  // namespace lasp::worker
