#include "worker/engine/starting_state.h"

#include <functional>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "worker/checkpoint/initial_weights.h"
#include "worker/checkpoint/rebuild.h"
#include "worker/checkpoint/restore.h"
#include "worker/engine/state_shares.h"
#include "worker/model/parameter_init.h"

namespace lasp::worker {
namespace {

// From a checkpoint, or from what was left in memory.
absl::StatusOr<lasp::v1::TrainingState> GoOn(const TrainerOptions& options, TrainingParts& parts,
                                             const std::function<bool()>& give_up,
                                             const std::function<void()>& on_block) {
  if (options.rebuild.has_value()) {
    return RebuildState({.memory_root = options.memory_root,
                         .uid = options.uid,
                         .rebuild = *options.rebuild,
                         .layout = &parts.layout(),
                         .backend = options.backend,
                         .world = options.world,
                         .tensors = parts.tensors(),
                         .owned = SharesOwned(parts),
                         .give_up = give_up,
                         .on_block = on_block});
  }
  return Restore({.root = options.checkpoint_root,
                  .reference = *options.restore_from,
                  .spec = options.spec,
                  .layout = &parts.layout(),
                  .backend = options.backend,
                  .world = options.world,
                  .tensors = parts.tensors(),
                  .owned = SharesOwned(parts),
                  .give_up = give_up,
                  .on_block = on_block});
}

absl::Status Begin(const TrainerOptions& options, TrainingParts& parts,
                   const std::function<bool()>& give_up, const std::function<void()>& on_block) {
  if (options.initial_weights != nullptr) {
    return LoadInitialWeights({.folder = options.initial_weights,
                               .layout = &parts.layout(),
                               .backend = options.backend,
                               .world = options.world,
                               .masters = parts.parallel().masters(),
                               .owned = SharesOwned(parts),
                               .give_up = give_up,
                               .on_block = on_block});
  }
  InitializeParameters(parts.whole_config(), parts.layout(), options.spec.seed(), *options.backend,
                       SharesOwned(parts).value_or(
                           std::vector<TensorShare>{{.begin = 0, .count = parts.layout().count()}}),
                       parts.parallel().masters());
  return absl::OkStatus();
}

// Where weights are not the masters themselves.
void CopyWeights(Backend& backend, const DataParallel& parallel) {
  for (const OwnedRange& range : parallel.owned()) {
    const Tensor master = parallel.masters()
                              .Columns(range.share.local, range.share.count)
                              .Reshape(1, range.share.count);
    if (range.weight.data != master.data) {
      backend.Convert(master, range.weight);
    }
  }
}

}  // namespace

absl::StatusOr<lasp::v1::TrainingState> MakeStartingState(const TrainerOptions& options,
                                                          TrainingParts& parts) {
  ProgressClock* const progress = options.progress;
  const auto enter = [progress](ProgressClock::Section section) {
    if (progress != nullptr) {
      progress->Enter(section);
    }
  };
  const auto on_block = [progress] {
    if (progress != nullptr) {
      progress->Advance();
    }
  };
  const auto give_up = [&options] { return options.drain->requested(); };
  lasp::v1::TrainingState state;
  enter(ProgressClock::Section::kRestoring);
  if (options.rebuild.has_value() || options.restore_from.has_value()) {
    LASP_ASSIGN_OR_RETURN(state, GoOn(options, parts, give_up, on_block));
    parts.control().TakeUpCounts(state);
  } else {
    LASP_RETURN_IF_ERROR(Begin(options, parts, give_up, on_block));
  }
  enter(ProgressClock::Section::kUntimed);
  CopyWeights(*options.backend, parts.parallel());
  LASP_RETURN_IF_ERROR(parts.SpreadWeights());
  return state;
}

}  // namespace lasp::worker
