#include "worker/device/memory_bill.h"

#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace lasp::worker {
namespace {

std::string Size(int64_t bytes) {
  constexpr std::array kUnits = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? absl::StrCat(bytes, " bytes")
                   : absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

}  // namespace

const char* NameOf(MemoryUse use) {
  switch (use) {
    case MemoryUse::kWeights:
      return "weights";
    case MemoryUse::kGradients:
      return "gradients";
    case MemoryUse::kOptimizer:
      return "optimizer";
    case MemoryUse::kActivations:
      return "activations";
    case MemoryUse::kStates:
      return "states";
    case MemoryUse::kWorkspace:
      return "workspace";
    case MemoryUse::kCommunication:
      return "communication";
  }
  return "";
}

int64_t MemoryBill::total() const {
  return std::accumulate(bytes_.begin(), bytes_.end(), int64_t{0});
}

std::string MemoryBill::ToString() const {
  std::vector<std::string> parts;
  for (const MemoryUse use : kMemoryUses) {
    if ((*this)[use] > 0) {
      parts.push_back(absl::StrCat(NameOf(use), " ", Size((*this)[use])));
    }
  }
  return absl::StrCat(absl::StrJoin(parts, ", "), ": ", Size(total()));
}

}  // namespace lasp::worker
