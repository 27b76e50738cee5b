// All ranks of a generation, connected over NCCL, or by copy engines where they are on one host,
// and a thread that watches over them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/mutex.h"
#include "worker/device/cuda_backend.h"
#include "worker/parallel/collective_log.h"
#include "worker/parallel/nccl_communicator.h"
#include "worker/parallel/peer_communicator.h"
#include "worker/parallel/process_grid.h"
#include "worker/parallel/watched_group.h"

namespace lasp::worker {

// Rank 0 makes it; whoever knows it can join: never logged.
absl::StatusOr<std::string> MakeNcclId();

struct NcclWorldOptions {
  // Until the last rank is connected.
  absl::Duration connect_timeout = absl::Minutes(1);
  // How long one collective may take on the device, waiting for other ranks included.
  absl::Duration timeout = absl::Minutes(10);
  // Among ranks whose GPUs reach each other's memory, states and gradients go by copy engines.
  bool peer_copies = true;
  // SP groups get another communicator, shards().
  bool groups_shard = false;
  // Whether there is a wrap().
  bool streams = false;
  // Told of every operation; must outlive the world.
  CollectiveJournal* journal = nullptr;
  // Ends the connecting early, soon after it says so; asked by several threads.
  std::function<bool()> give_up = [] { return false; };
};

// NCCL has no timeouts. The watching thread finds what failed, and what has begun on the device and
// does not end, and then aborts all communicators, so that every wait ends with the reason.
class NcclWorld {
 public:
  // Connects this rank to all others. Sends something over every connection that training uses, so
  // that the first step does not set them up. FAILED_PRECONDITION unless NCCL_NVLS_ENABLE is 0;
  // UNAVAILABLE where not every rank came in time; CANCELLED when told to give up.
  static absl::StatusOr<std::unique_ptr<NcclWorld>> Connect(CudaBackend* backend,
                                                            const ProcessGrid& grid,
                                                            const std::string& id,
                                                            const NcclWorldOptions& options);
  ~NcclWorld();
  NcclWorld(const NcclWorld&) = delete;
  NcclWorld& operator=(const NcclWorld&) = delete;

  Communicator& world() { return Fastest(world_peers_, 0); }

  Communicator& sp() { return Fastest(sp_peers_, 1); }

  // The SP group once more, for what goes from macro-chunk to macro-chunk; null unless asked for.
  Communicator* wrap() { return options_.streams ? &Fastest(wrap_peers_, WrapGroup()) : nullptr; }

  Communicator& dp() { return *nccl_[2]; }

  // Null where nobody asked for it.
  Communicator* shards() { return options_.groups_shard ? &Fastest(shard_peers_, 3) : nullptr; }

  // Ends everything under way with `why`, and what the device updates with it; later operations
  // fail with it. Thread-safe.
  void Abort(const absl::Status& why);

 private:
  NcclWorld(CudaBackend* backend, const NcclWorldOptions& options);

  // Its place in nccl_.
  size_t WrapGroup() const { return options_.groups_shard ? 4 : 3; }

  Communicator& Fastest(const std::unique_ptr<PeerCommunicator>& peers, size_t group) const {
    return peers != nullptr ? static_cast<Communicator&>(*peers) : *nccl_[group];
  }

  // Why connecting should not go on. Thread-safe.
  absl::Status Interruption() const;
  absl::Status Split(const ProcessGrid& grid);
  absl::Status Warm(CudaBackend* backend, const ProcessGrid& grid);
  absl::Status ReachPeers(CudaBackend* backend, const ProcessGrid& grid);
  // Until something is wrong with a group, or the world is to end.
  absl::Status AwaitFailure();
  void Watch();
  void AbortAll(const absl::Status& why);

  struct Watched {
    WatchedGroup* group = nullptr;
    // The operation that is under way on the device, and since when it is seen there.
    uint32_t number = 0;
    absl::Duration since;
  };

  // What is wrong with a group, a collective that goes on for too long included.
  absl::Status Check(Watched* watched) const;

  CudaBackend& backend_;
  const NcclWorldOptions options_;
  const absl::Duration connect_deadline_;
  std::atomic<bool> connected_{false};
  std::vector<std::unique_ptr<NcclCommunicator>> nccl_;  // world, SP, DP, perhaps shards and wrap
  // Null where ranks do not reach each other's memory.
  std::unique_ptr<PeerCommunicator> world_peers_;
  std::unique_ptr<PeerCommunicator> sp_peers_;
  std::unique_ptr<PeerCommunicator> shard_peers_;
  std::unique_ptr<PeerCommunicator> wrap_peers_;
  Mutex mutex_;
  // In the order of an abort.
  std::vector<Watched> watched_ GUARDED_BY(mutex_);
  CondVar changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread watcher_;
};

}  // namespace lasp::worker
