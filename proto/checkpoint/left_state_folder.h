// Where ranks leave state for the next generation, beneath an agent's --memory_root.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace lasp {

// The folder of what a generation left.
inline std::string LeftStateFolder(const std::string& uid, int64_t generation) {
  return absl::StrCat(uid, ".gen-", generation);
}

// Whether it is that of an older generation of the job.
inline bool IsOlderLeftState(absl::string_view folder, const std::string& uid, int64_t generation) {
  int64_t number = 0;
  return absl::ConsumePrefix(&folder, absl::StrCat(uid, ".gen-")) &&
         absl::SimpleAtoi(folder, &number) && number < generation;
}

}  // namespace lasp
