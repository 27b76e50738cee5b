// What a rank computes on and how it speaks with the others. Each rank program links one
// implementation: cpu_rank_runtime.cc or cuda_rank_runtime.cc.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "worker/device/backend.h"
#include "worker/parallel/collective_log.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/process_grid.h"

namespace lasp::worker {

// Used by the training thread, in the order of the functions below.
class RankRuntime {
 public:
  virtual ~RankRuntime() = default;

  virtual Backend& backend() = 0;

  // What the other ranks need to connect: opaque, never empty, and may hold a secret: not for a
  // log. UNAVAILABLE where this rank cannot be reached by others.
  virtual absl::StatusOr<std::string> Listen() = 0;
  // Connects to all others. `addresses` as every rank's Listen gave them, in rank order.
  // UNAVAILABLE where a peer did not come in time; CANCELLED soon after `give_up`, which any thread
  // may ask, says so.
  virtual absl::Status Connect(const std::vector<std::string>& addresses,
                               const std::function<bool()>& give_up) = 0;

  // Once connected: the SP group, and all ranks.
  virtual Communicator& sp() = 0;
  virtual Communicator& world() = 0;
  // Where SP groups shard (GroupsShard): the SP group once more, so that weights and states do not
  // wait for one another, and the ranks in the same place of the others; null otherwise.
  virtual Communicator* shards() = 0;
  virtual Communicator* replicas() = 0;
  // The SP group once more, for what goes from macro-chunk to macro-chunk; null unless the spec's
  // sequences stream.
  virtual Communicator* wrap() = 0;

  // What this rank does with others, as it comes about. Any thread may look.
  virtual const CollectiveJournal& journal() const = 0;

  // Once the step has been rehearsed, called by all ranks: those that could compute the same in
  // several ways take to rank 0's. Returns what Setup.gemm_record of a later generation should be,
  // empty where there is but one way.
  virtual absl::StatusOr<std::string> AgreeOnAlgorithms() = 0;

  // Ends what is under way with other ranks, and fails all that begins later: before anything that
  // it computes with is destroyed, or read for the last time. Once connected any thread may call
  // it.
  virtual void Abandon() = 0;
};

// Opens the device. INVALID_ARGUMENT for a model that it cannot compute; a SuspectHostError where
// there is none that can be used.
absl::StatusOr<std::unique_ptr<RankRuntime>> CreateRankRuntime(
    const lasp::internal::v1::Setup& setup, const ProcessGrid& grid);

// The job's name and uid, and the generation: what the ranks that are to meet have in common.
std::string GenerationName(const lasp::v1::Fence& fence);

// Of the program that links it: "lasp-rank".
const char* RankProgramName();

}  // namespace lasp::worker
