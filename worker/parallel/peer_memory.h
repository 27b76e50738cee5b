// Device memory of other ranks of this host, mapped into this process, so that a GPU's copy engines
// and stream memory operations reach it without a kernel.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/device/cuda_backend.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

class PeerMemory {
 public:
  // Every rank of `group` calls it, with memory of its own GPU that begins anywhere within an
  // allocation. Null, on every rank alike, where some rank cannot reach the memory of another: they
  // are on different hosts, in containers that do not share memory, or without a path between the
  // GPUs; or where `bytes` are not the same on all.
  static absl::StatusOr<std::unique_ptr<PeerMemory>> Exchange(CudaBackend* backend,
                                                              Communicator* group, void* memory,
                                                              int64_t bytes);
  // The others must have stopped using this rank's memory before it is freed.
  ~PeerMemory();
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  // What that rank gave, as this process addresses it.
  char* at(int rank) const { return addresses_[static_cast<size_t>(rank)]; }

 private:
  explicit PeerMemory(int size) : addresses_(static_cast<size_t>(size)) {}

  std::vector<char*> addresses_;
  // Allocations of other processes, opened here.
  std::vector<void*> opened_;
};

}  // namespace lasp::worker
