#include "worker/engine/state_shares.h"

#include "worker/checkpoint/left_state.h"
#include "worker/checkpoint/row_staging.h"

namespace lasp::worker {
namespace {

// The places of all ranges, in their order.
std::vector<TensorShare> PlacesOfAll(const ParameterShards& shards,
                                     const std::vector<TensorShare>& ranges) {
  std::vector<TensorShare> all;
  for (const TensorShare& range : ranges) {
    const std::vector<TensorShare> places = shards.PlacesOf(range);
    all.insert(all.end(), places.begin(), places.end());
  }
  return all;
}

}  // namespace

std::optional<std::vector<TensorShare>> SharesOwned(const TrainingParts& parts) {
  auto owned = OwnedShares(parts.parallel());
  return owned.has_value() ? PlacesOfAll(parts.shards(), *owned) : owned;
}

std::optional<std::vector<TensorShare>> SharesSaved(const TrainerOptions& options,
                                                    const TrainingParts& parts) {
  if (parts.config().tensor_ranks > 1) {
    std::vector<TensorShare> counted;
    for (const OwnedRange& range : parts.parallel().counted()) {
      counted.push_back(range.share);
    }
    counted = Without(parts.shards().column_cuts(), counted);
    return PlacesOfAll(parts.shards(),
                       parts.parallel().owns_all()
                           ? PartOf(counted, options.replicas->size(), options.replicas->rank())
                           : counted);
  }
  auto owned = SharesOwned(parts);
  return owned.has_value() && options.replicas != nullptr
             ? PartOf(*owned, options.replicas->size(), options.replicas->rank())
             : owned;
}

absl::StatusOr<std::vector<TensorShare>> SharesLeft(const TrainerOptions& options,
                                                    const TrainingParts& parts) {
  if (options.memory_root.empty() || options.world->size() == 1) {
    return absl::FailedPreconditionError(options.memory_root.empty()
                                             ? "the agent has no --memory_root"
                                             : "there is no other rank to take it up");
  }
  if (parts.parallel().replicates()) {
    return std::vector<TensorShare>{
        LeftShareOf(parts.layout().count(), options.world->size(), options.world->rank())};
  }
  if (parts.config().tensor_ranks > 1) {
    return absl::FailedPreconditionError(
        "MEGATRON_SP shares the weights out: what a lost rank had is in its checkpoints only");
  }
  if (options.replicas != nullptr && options.replicas->size() > 1) {
    return *SharesOwned(parts);
  }
  return absl::FailedPreconditionError(
      "each rank owns its share alone: that of a lost rank is in its checkpoints only");
}

}  // namespace lasp::worker
