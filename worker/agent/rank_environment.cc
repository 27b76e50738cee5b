#include "worker/agent/rank_environment.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "worker/agent/cpu_quota.h"

namespace lasp::worker {
namespace {

constexpr absl::string_view kNames[] = {
    "PATH",         "LD_LIBRARY_PATH",
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    "ASAN_OPTIONS", "LSAN_OPTIONS",    "TSAN_OPTIONS", "UBSAN_OPTIONS",
#endif
};
constexpr absl::string_view kPrefixes[] = {"NCCL_", "CUDA_", "OMP_", "OPENBLAS_"};
// Set below.
constexpr absl::string_view kLeftOut[] = {
    "OMP_WAIT_POLICY",      "OMP_NUM_THREADS",  "OPENBLAS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES", "NCCL_NVLS_ENABLE",
};

bool Contains(const absl::string_view* begin, const absl::string_view* end,
              absl::string_view name) {
  return std::find(begin, end, name) != end;
}

bool Passes(absl::string_view name) {
  if (Contains(std::begin(kLeftOut), std::end(kLeftOut), name)) {
    return false;
  }
  return Contains(std::begin(kNames), std::end(kNames), name) ||
         std::any_of(std::begin(kPrefixes), std::end(kPrefixes),
                     [name](absl::string_view prefix) { return absl::StartsWith(name, prefix); });
}

}  // namespace

int AvailableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) {
    return 1;
  }
  // A container's limit leaves every core in sight.
  return std::max(1, std::min(CPU_COUNT(&set), CpuQuota().value_or(CPU_COUNT(&set))));
}

std::vector<std::string> RankEnvironment(const std::vector<std::string>& inherited, int threads,
                                         const std::string& gpu_uuid) {
  std::vector<std::string> environment;
  for (const std::string& entry : inherited) {
    const absl::string_view name = absl::string_view(entry).substr(0, entry.find('='));
    if (Passes(name)) {
      environment.push_back(entry);
    }
  }
  environment.emplace_back("OMP_WAIT_POLICY=passive");
  environment.push_back(absl::StrCat("OMP_NUM_THREADS=", threads));
  environment.push_back(absl::StrCat("OPENBLAS_NUM_THREADS=", threads));
  if (!gpu_uuid.empty()) {
    environment.push_back(absl::StrCat("CUDA_VISIBLE_DEVICES=", gpu_uuid));
    environment.emplace_back("NCCL_NVLS_ENABLE=0");
  }
  return environment;
}

std::vector<std::string> OwnEnvironment() {
  std::vector<std::string> copy;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    copy.emplace_back(*entry);
  }
  return copy;
}

}  // namespace lasp::worker
