// Where a step's time goes, in the order in which work is issued to a device.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace lasp::worker {

// No two overlap: what waits for a state of another rank is neither forward nor backward.
enum class Phase : uint8_t {
  kOther,
  kData,
  kForward,
  kBackward,
  kSpWait,        // the device has nothing to do until a state arrives
  kGradientSync,  // nor until the last gradients are reduced
  kOptimizer,
  kCheckpoint,  // an update has to wait until what it changes has been copied
};

class PhaseSeconds {
 public:
  double& operator[](Phase phase) { return seconds_[static_cast<size_t>(phase)]; }

  double operator[](Phase phase) const { return seconds_[static_cast<size_t>(phase)]; }

 private:
  std::array<double, static_cast<size_t>(Phase::kCheckpoint) + 1> seconds_{};
};

}  // namespace lasp::worker
