// All ranks of a generation, connected over NCCL, and a thread that watches over them.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/mutex.h"
#include "worker/device/cuda_backend.h"
#include "worker/parallel/nccl_communicator.h"
#include "worker/parallel/process_grid.h"

namespace lasp::worker {

// Rank 0 makes it; whoever knows it can join: never logged.
absl::StatusOr<std::string> MakeNcclId();

// NCCL has no timeouts. The watching thread finds what failed, and what has begun on the device and
// does not end, and then aborts all communicators, so that every wait ends with the reason.
class NcclWorld {
 public:
  // Connects this rank to all others within `timeout`, which is also how long one collective may
  // take on the device. Sends something over every connection that training uses, so that the first
  // step does not set them up. FAILED_PRECONDITION unless NCCL_NVLS_ENABLE is 0.
  static absl::StatusOr<std::unique_ptr<NcclWorld>> Connect(CudaBackend* backend,
                                                            const ProcessGrid& grid,
                                                            const std::string& id,
                                                            absl::Duration timeout);
  ~NcclWorld();
  NcclWorld(const NcclWorld&) = delete;
  NcclWorld& operator=(const NcclWorld&) = delete;

  Communicator& world() { return *communicators_[0]; }

  Communicator& sp() { return *communicators_[1]; }

  Communicator& dp() { return *communicators_[2]; }

 private:
  explicit NcclWorld(absl::Duration timeout) : timeout_(timeout) {}

  absl::Status Warm(CudaBackend* backend, const ProcessGrid& grid);
  void Watch();
  void AbortAll(const absl::Status& why);

  const absl::Duration timeout_;
  std::vector<std::unique_ptr<NcclCommunicator>> communicators_;  // world, SP, DP
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread watcher_;
};

}  // namespace lasp::worker
