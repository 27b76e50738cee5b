// What a rank trains, with whom and on what.
#pragma once

#include <optional>
#include <string>

#include "lasp/v1/checkpoint.pb.h"
#include "lasp/v1/training_spec.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/interchange/model_folder.h"
#include "worker/data/batch_source.h"
#include "worker/device/backend.h"
#include "worker/engine/drain_request.h"
#include "worker/engine/progress_clock.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/process_grid.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

struct TrainerOptions {
  lasp::v1::TrainingSpec spec;  // with its defaults written out
  ProcessGrid grid;
  // All outlive the trainer.
  Backend* backend = nullptr;
  Communicator* sp = nullptr;     // the SP group
  Communicator* world = nullptr;  // all ranks
  // Where SP groups shard (GroupsShard): this rank's, and the ranks in the same place of the
  // others. Not the communicators of `sp`: states do not wait for weights.
  Communicator* shards = nullptr;
  Communicator* replicas = nullptr;
  Communicator* wrap = nullptr;  // the SP group once more; null unless the sequences stream
  const BatchSource* train_data = nullptr;
  const BatchSource* eval_data = nullptr;  // null: nothing is held out
  const DrainRequest* drain = nullptr;
  // Where given, the run goes on from there; otherwise it begins.
  std::string checkpoint_root = {};
  std::optional<lasp::v1::CheckpointReference> restore_from = {};
  // The agent's; empty: no state is left there. And what the run goes on from in place of a
  // checkpoint, with the job's uid.
  std::string memory_root = {};
  std::optional<lasp::v1::Rebuild> rebuild = {};
  std::string uid = {};
  // Told as it is read, and of an evaluation's batches; null for nobody.
  ProgressClock* progress = nullptr;
  // Where given, and the run begins, with these weights; null: with random ones. Used by Create.
  const ModelFolder* initial_weights = nullptr;
  // Where given, WriteStepDump after the reduction of a run's first step.
  std::string dump_directory;
  // Replaces the strategy that the spec names (tests).
  SequenceParallel* attention = nullptr;

  // Whether the documents of a sequence are apart.
  bool packs() const { return spec.data().documents() == lasp::v1::DataSpec::DOCUMENTS_PACKED; }
};

}  // namespace lasp::worker
