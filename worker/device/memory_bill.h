// What a rank's device memory is planned for.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace lasp::worker {

enum class MemoryUse : uint8_t {
  kWeights,    // masters and their copies for the products
  kGradients,  // of parameters
  kOptimizer,
  kActivations,  // from forward to backward
  kStates,       // of attention, and their gradients
  kWorkspace,    // what a step uses between its operations
  kCommunication,
};

inline constexpr std::array kMemoryUses = {
    MemoryUse::kWeights, MemoryUse::kGradients, MemoryUse::kOptimizer,    MemoryUse::kActivations,
    MemoryUse::kStates,  MemoryUse::kWorkspace, MemoryUse::kCommunication};

// As in metrics: "weights", "gradients", ...
const char* NameOf(MemoryUse use);

// Bytes by use.
class MemoryBill {
 public:
  int64_t& operator[](MemoryUse use) { return bytes_[static_cast<size_t>(use)]; }

  int64_t operator[](MemoryUse use) const { return bytes_[static_cast<size_t>(use)]; }

  int64_t total() const;
  // "weights 4.3 GiB, gradients 4.3 GiB, ...: 21.0 GiB", without what is nothing.
  std::string ToString() const;

 private:
  std::array<int64_t, kMemoryUses.size()> bytes_{};
};

}  // namespace lasp::worker
