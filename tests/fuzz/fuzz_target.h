// One parser of bytes from outside, driven by whatever bytes. libFuzzer makes them up
// (tests/fuzz/run), and the suite replays those that were kept (corpus/).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/string_view.h"

namespace lasp::fuzz {

// What the target promises of every input. Ends the process where it does not hold, in any build.
inline void Require(bool holds, const char* promise) {
  if (!holds) {
    std::fprintf(stderr, "broken promise: %s\n", promise);
    std::abort();
  }
}

inline absl::string_view ToText(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Takes the first byte off: it chooses among what a target can do.
inline uint8_t TakeChoice(absl::string_view* text) {
  if (text->empty()) {
    return 0;
  }
  const auto choice = static_cast<uint8_t>(text->front());
  text->remove_prefix(1);
  return choice;
}

}  // namespace lasp::fuzz

// Each target is one definition of this: libFuzzer's name for it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
