// How much memory this host has for us.
#pragma once

#include <cstdint>

namespace lasp::worker {

// What the machine has, or the control group of this process allows where that is less.
int64_t HostMemoryBytes();

}  // namespace lasp::worker
