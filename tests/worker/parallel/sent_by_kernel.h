// What the kernel says this process has sent over its TCP sockets: a witness of a communicator's
// own count that knows nothing of it.
#pragma once

#include <cstdint>

namespace lasp::worker {

// Bytes of payload over all open sockets, what was sent again not counted; what still lies in the
// kernel is waited for, a second at most.
int64_t SentByKernel();

}  // namespace lasp::worker
