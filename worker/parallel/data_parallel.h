// Where parameters, their gradients and what the optimizer keeps of them lie, and how gradients
// become the sum over all ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/device/tensor.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

// Parameters that are used together: a block, the embedding, the head. Elements [begin, begin +
// count) of the one flat order of all parameters.
struct ParameterUnit {
  int64_t begin = 0;
  int64_t count = 0;
  // Units of one slot are not in use at the same time, and may share memory.
  int slot = 0;
  // With tensor parallelism: the ranks of an SP group have different parameters here, and only
  // those of its replicas the same.
  bool shared_out = false;
};

// A piece of the parameters that a rank has.
struct TensorShare {
  int64_t begin = 0;  // in the flat order
  int64_t count = 0;
  int64_t local = 0;  // where it begins in this rank's tensors
};

// Such a piece that this rank updates; local in masters(), and in moments laid out alike.
struct OwnedRange {
  TensorShare share;
  Tensor weight;    // [1, count]: the masters' copy for the products, or the masters themselves
  Tensor gradient;  // [1, count]: what Finish leaves, summed over the world
};

// Owns the memory of masters, weights and gradients. A step: BeginStep; for each micro-batch the
// units in the order of the forward and then of the backward pass, UseWeights before their weights
// are read, UseGradients before their gradients are written, GradientsDone after; Finish; the
// update of what owned() says; SpreadWeights. All ranks do alike. Not thread-safe.
class DataParallel {
 public:
  virtual ~DataParallel() = default;

  // [1, n], of the accumulation type.
  virtual Tensor masters() const = 0;
  // Ascending.
  virtual const std::vector<OwnedRange>& owned() const = 0;
  // Whether every rank owns all parameters; otherwise ranks own them apart.
  virtual bool replicates() const = 0;

  // Whether this rank owns all that its weights and gradients are of.
  virtual bool owns_all() const { return replicates(); }

  // The part of owned() that this rank speaks for, as owned() otherwise: of what SumOverOwners sums
  // over, each element is one rank's.
  virtual const std::vector<OwnedRange>& counted() const { return owned(); }

  // [1, count of the unit]: where they are while in use. The same for good.
  virtual Tensor weights(int64_t unit) const = 0;    // of the activation type
  virtual Tensor gradients(int64_t unit) const = 0;  // of the accumulation type
  // Whether gradients(unit) still has the sum of the micro-batches before, to be added to;
  // otherwise a micro-batch writes its own.
  virtual bool keeps_sums() const = 0;

  virtual void BeginStep() {}

  // What is issued from here on finds the unit's weights, until a unit of the same slot is used.
  // `next` is the unit that will be used after this one, kNoUnit where nobody knows: it is brought
  // meanwhile.
  virtual absl::Status UseWeights(int64_t /*unit*/, int64_t /*next*/) { return absl::OkStatus(); }

  virtual absl::Status UseGradients(int64_t /*unit*/) { return absl::OkStatus(); }

  // The micro-batch has written or added the unit's gradients; `last`: of the step. Units come from
  // the last to the first.
  virtual void GradientsDone(int64_t unit, bool last) = 0;
  // After the last unit of the last micro-batch: waits until the gradients of owned() are the sum
  // over the world.
  virtual absl::Status Finish() = 0;

  // The weights of owned() have changed. Where each rank owns a part, also sums over those that own
  // the others.
  virtual absl::Status SpreadWeights() { return absl::OkStatus(); }

  // Makes what each rank has of its own parameters the sum over all parameters.
  virtual absl::Status SumOverOwners(Tensor /*values*/) { return absl::OkStatus(); }
};

inline constexpr int64_t kNoUnit = -1;

struct DataParallelOptions {
  // All must outlive the strategy.
  Backend* backend = nullptr;
  Communicator* world = nullptr;
  // Hybrid sharding: units are cut among `shards` alone, and those of other such groups that have
  // the same parts are `replicas`. Null: among the world. With tensor parallelism likewise: the SP
  // group, and the ranks that have the same parameters.
  Communicator* shards = nullptr;
  Communicator* replicas = nullptr;
  std::vector<ParameterUnit> units;  // side by side, from 0 on
};

// Distributed data parallel: everything on every rank, gradients reduced in buckets of
// `bucket_elements` from the last to the first, under the rest of the backward pass. A bucket that
// holds all is reduced after it. What is shared out in an SP group (ParameterUnit) is reduced over
// its replicas alone: then `shards` and `replicas` are needed.
std::unique_ptr<DataParallel> CreateDdp(const DataParallelOptions& options, int64_t bucket_elements,
                                        Arena& arena);

// ZeRO (Rajbhandari et al., arXiv 1910.02054). Each unit is cut into as many equal parts as there
// are ranks, padded to 64 elements; a rank owns one part of each: masters and moments of no other.
struct ZeroStages {
  // ZeRO-2: of the sum over micro-batches each rank keeps its own part. A micro-batch's gradients
  // of a unit are scattered as soon as they are there, out of memory that units of a slot share.
  // Otherwise whole gradients are kept, and scattered once a step.
  bool shards_gradients = false;
  // ZeRO-3: weights too are gathered a unit ahead, into memory that units of a slot share.
  // Otherwise each rank has all of them, gathered once a step.
  bool shards_weights = false;
};

// Among the ranks of `shards` where there are some: the sums of their parts are then summed over
// `replicas` when all are done. What is shared out in an SP group (ParameterUnit) is cut among
// `replicas` instead, and everything else among the world.
//
// Sending, with p the elements of a part, P ranks and M micro-batches: (P - 1) p (4 + w) bytes a
// rank and step with whole gradients, w the size of a weight: no more than DDP's 8 n (P - 1) / P,
// because what replaces an all-reduce is the half of it that sums, and the other half carries
// weights in place of gradients. Sharded gradients send (P - 1) p 4 M; sharded weights, w for each
// time that a unit is not in its slot any more. Over R replicas another 2 p 4 (R - 1) / R.
std::unique_ptr<DataParallel> CreateZero(const DataParallelOptions& options, ZeroStages stages,
                                         Arena& arena);

}  // namespace lasp::worker
