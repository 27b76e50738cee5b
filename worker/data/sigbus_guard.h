// Reading memory-mapped files without dying of them: a page that its file no longer holds (or that
// the disk cannot deliver) raises SIGBUS in the thread that touches it.
#pragma once

#include <cstddef>

namespace lasp::worker {

// memcpy from a mapping. Returns false, with part of `destination` written, where a page could not
// be had. The first call installs a process-wide SIGBUS handler, which passes signals that are not
// of such a copy on to whatever handled them before. Thread-safe.
bool CopyFromMapping(void* destination, const void* source, size_t bytes);

}  // namespace lasp::worker
