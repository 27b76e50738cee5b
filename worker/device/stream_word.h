// Stream memory operations: a stream writes a word, or goes on once a word has come to a value. No
// kernel runs for them, so they wait for no multiprocessor.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"

namespace lasp::worker {

// FAILED_PRECONDITION where the driver has no such operations.
absl::Status CheckStreamWords();

// `word` as the device addresses it: its own memory, pinned host memory, or another GPU's that is
// mapped here. What the stream did before is seen by whoever sees the value.
absl::Status WriteWord(cudaStream_t stream, uint32_t* word, uint32_t value);

// Until the word is `value` or at most 2^31 - 1 past it, wrapping round. What another GPU wrote
// before it wrote the word is then seen by what follows in the stream.
absl::Status WaitForWord(cudaStream_t stream, uint32_t* word, uint32_t value);

}  // namespace lasp::worker
