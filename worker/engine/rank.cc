#include "worker/engine/rank.h"

#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/interchange/initial_weights.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/log.h"
#include "proto/rpc/rank_exit_code.h"
#include "proto/rpc/status_macros.h"
#include "worker/checkpoint/checkpoints.h"
#include "worker/data/batch_source.h"
#include "worker/engine/channel_observer.h"
#include "worker/engine/exit_code.h"
#include "worker/engine/progress_clock.h"
#include "worker/engine/rank_monitor.h"
#include "worker/engine/rank_runtime.h"
#include "worker/engine/step_load.h"
#include "worker/engine/train_loop.h"
#include "worker/engine/trainer.h"
#include "worker/parallel/process_grid.h"

namespace lasp::worker {
namespace {

using ::lasp::internal::v1::FromRank;
using ::lasp::internal::v1::Setup;

// The agent speaks first, at once.
constexpr absl::Duration kSetupTimeout = absl::Minutes(1);
// Until the last rank of the generation has come as far; hosts may be slow to start theirs.
constexpr absl::Duration kGangTimeout = absl::Minutes(10);
constexpr absl::Duration kFarewellTimeout = absl::Seconds(10);

class Rank {
 public:
  Rank(RankChannel* channel, ChannelListener* listener, const DrainRequest* drain)
      : channel_(*channel), listener_(*listener), drain_(*drain), observer_(channel) {}

  ~Rank() {
    listener_.SetOnDump(nullptr);
    listener_.SetOnLeave(nullptr);
    // A GPU frees no memory while a collective on it waits for a peer.
    if (runtime_ != nullptr) {
      runtime_->Abandon();
    }
  }

  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;

  // To the end of training, or why not.
  absl::StatusOr<TrainEnd> Run() {
    LASP_ASSIGN_OR_RETURN(setup_, listener_.WaitForSetup(kSetupTimeout));
    InitializeLog({.level = LogLevel::kInfo,
                   .component = RankProgramName(),
                   .fields = {{"training_job", setup_.fence().training_job()},
                              {"generation", setup_.fence().generation()},
                              {"rank", setup_.fence().rank()}}});
    LASP_RETURN_IF_ERROR(CheckCheckpoints());
    const lasp::v1::ParallelismSpec& parallelism = setup_.spec().parallelism();
    LASP_ASSIGN_OR_RETURN(
        const ProcessGrid grid,
        ProcessGrid::Create(setup_.fence().rank(), parallelism.sequence_parallel().size(),
                            parallelism.data_parallel().size()));
    LASP_ASSIGN_OR_RETURN(runtime_, CreateRankRuntime(setup_, grid));
    progress_ = std::make_unique<ProgressClock>(&runtime_->journal(), grid.sp_size() > 1);
    monitor_ =
        std::make_unique<RankMonitor>(&channel_, &runtime_->journal(), progress_.get(), &load_);
    listener_.SetOnDump([monitor = monitor_.get()] { monitor->Dump(); });
    // What is wrong with the data should not cost the peers their wait for this rank.
    LASP_RETURN_IF_ERROR(OpenData(grid));
    LASP_RETURN_IF_ERROR(MeetPeers());
    Trainer::Options options{.spec = setup_.spec(),
                             .grid = grid,
                             .backend = &runtime_->backend(),
                             .sp = &runtime_->sp(),
                             .world = &runtime_->world(),
                             .shards = runtime_->shards(),
                             .replicas = runtime_->replicas(),
                             .wrap = runtime_->wrap(),
                             .train_data = train_data_.get(),
                             .eval_data = eval_data_.get(),
                             .drain = &drain_,
                             .checkpoint_root = setup_.checkpoint_root(),
                             .memory_root = setup_.memory_root(),
                             .uid = setup_.fence().uid(),
                             .progress = progress_.get(),
                             .initial_weights = initial_weights_.get(),
                             .dump_directory = setup_.dump_directory()};
    if (setup_.has_restore_from()) {
      options.restore_from = setup_.restore_from();
    }
    if (setup_.has_rebuild()) {
      options.rebuild = setup_.rebuild();
    }
    LASP_ASSIGN_OR_RETURN(trainer_, Trainer::Create(options));
    initial_weights_.reset();
    LASP_RETURN_IF_ERROR(OpenCheckpoints());
    LASP_ASSIGN_OR_RETURN(std::string gemm_record, runtime_->AgreeOnAlgorithms());
    LASP_LOG(
        kInfo, "ready",
        {{"world_size", grid.world_size()},
         {"sp_rank", grid.sp_rank()},
         {"dp_rank", grid.dp_rank()},
         {"parameters", trainer_->layout().count()},
         {"memory_bytes", trainer_->memory().total()},
         {"memory", trainer_->memory().ToString()},
         {"checkpoint_staging_bytes", checkpoints_ == nullptr ? 0 : checkpoints_->staging_bytes()},
         {"restored_step", trainer_->restored().step()},
         {"threads", setup_.threads()}});
    FromRank ready;
    *ready.mutable_ready()->mutable_fence() = setup_.fence();
    if (grid.rank() == 0) {
      ready.mutable_ready()->set_gemm_record(std::move(gemm_record));
    }
    LASP_RETURN_IF_ERROR(channel_.Write(ready));
    LASP_RETURN_IF_ERROR(listener_.WaitForStart(kGangTimeout).status());
    listener_.SetOnLeave([this] {
      // Before what may take its time on a GPU.
      observer_.OnPhase(lasp::v1::RankStatus::PHASE_STOPPING).IgnoreError();
      runtime_->Abandon();
    });
    loop_ = std::make_unique<TrainLoop>(options,
                                        TrainLoop::Parts{.generation = setup_.fence().generation(),
                                                         .trainer = trainer_.get(),
                                                         .checkpoints = checkpoints_.get(),
                                                         .observer = &observer_,
                                                         .progress = progress_.get(),
                                                         .load = &load_});
    LASP_ASSIGN_OR_RETURN(const TrainEnd end, loop_->Run());
    // A connection that closes while something unread lies in it is reset, and the reset may eat
    // what the peer has not read yet: close only when every rank has got what it needs. That this
    // last exchange itself may fail for the same reason does not matter.
    runtime_->world().Barrier().Wait(kFarewellTimeout).IgnoreError();
    return end;
  }

  // For the next generation, once the training has failed because of others; nothing where there is
  // nothing to be left.
  std::optional<lasp::v1::StateLeft> LeaveState() {
    if (loop_ == nullptr || setup_.memory_root().empty() || setup_.world_size() == 1) {
      return std::nullopt;
    }
    // The agent gives it time from here on.
    progress_->Enter(ProgressClock::Section::kRestoring);
    observer_.OnPhase(lasp::v1::RankStatus::PHASE_STOPPING).IgnoreError();
    runtime_->Abandon();
    absl::StatusOr<lasp::v1::StateLeft> left = trainer_->LeaveState(setup_.fence());
    if (!left.ok()) {
      LASP_LOG(kWarning, "no state is left for the next generation",
               {{"status", left.status().ToString()}});
      return std::nullopt;
    }
    loop_->AddRecentSteps(&*left);
    LASP_LOG(kInfo, "state is left for the next generation",
             {{"step", left->state().step()}, {"bytes", left->shard().size_bytes()}});
    return *std::move(left);
  }

  // A write that does not return keeps the process from ending in order.
  bool write_hangs() const { return checkpoints_ != nullptr && !checkpoints_->idle(); }

  int64_t last_step() const { return loop_ == nullptr ? 0 : loop_->last_step(); }

 private:
  absl::Status CheckCheckpoints() const {
    if (setup_.checkpoint_root().empty() &&
        (!setup_.checkpoint_folder().empty() || setup_.has_restore_from())) {
      return absl::FailedPreconditionError(
          "the coordinator keeps checkpoints and this worker has nowhere to find them: start "
          "lasp-worker with --checkpoint_root, the folder of lasp-server's as this host sees it");
    }
    return absl::OkStatus();
  }

  absl::Status OpenCheckpoints() {
    if (setup_.checkpoint_folder().empty()) {
      return absl::OkStatus();
    }
    LASP_ASSIGN_OR_RETURN(
        checkpoints_,
        Checkpoints::Create({.writer = {.root = setup_.checkpoint_root(),
                                        .folder = setup_.checkpoint_folder(),
                                        .fence = setup_.fence(),
                                        .world_size = setup_.world_size(),
                                        .layout = &trainer_->layout(),
                                        .backend = &runtime_->backend(),
                                        .tensors = trainer_->tensors(),
                                        .saved = trainer_->saved_shares(),
                                        .staging = trainer_->staging(),
                                        .on_shard =
                                            [this](const lasp::v1::ShardWritten& shard) {
                                              observer_.OnShard(shard);
                                            }},
                             .spec = setup_.spec().checkpoint(),
                             .restored_step = trainer_->checkpointed_step()}));
    return absl::OkStatus();
  }

  absl::Status OpenData(const ProcessGrid& grid) {
    const std::vector<std::string> roots(setup_.path_roots().begin(), setup_.path_roots().end());
    const DataCoordinates coordinates{.sp_rank = grid.sp_rank(),
                                      .sp_size = grid.sp_size(),
                                      .dp_rank = grid.dp_rank(),
                                      .dp_size = grid.dp_size()};
    LASP_ASSIGN_OR_RETURN(train_data_,
                          BatchSource::Open(setup_.spec(), roots, coordinates, DataSplit::kTrain));
    if (setup_.spec().eval_interval_steps() > 0 && setup_.spec().data().eval_paths_size() > 0) {
      LASP_ASSIGN_OR_RETURN(eval_data_,
                            BatchSource::Open(setup_.spec(), roots, coordinates, DataSplit::kEval));
    }
    const bool begins = !setup_.has_restore_from() && !setup_.has_rebuild();
    if (begins && setup_.spec().model().has_initial_weights()) {
      LASP_ASSIGN_OR_RETURN(ModelFolder folder, OpenInitialWeights(setup_.spec().model(), roots));
      initial_weights_ = std::make_unique<ModelFolder>(std::move(folder));
    }
    return absl::OkStatus();
  }

  absl::Status MeetPeers() {
    FromRank address;
    *address.mutable_rank_address()->mutable_fence() = setup_.fence();
    LASP_ASSIGN_OR_RETURN(*address.mutable_rank_address()->mutable_address(), runtime_->Listen());
    LASP_RETURN_IF_ERROR(channel_.Write(address));
    LASP_ASSIGN_OR_RETURN(const lasp::v1::PeerAddresses peers,
                          listener_.WaitForPeerAddresses(kGangTimeout));
    return runtime_->Connect({peers.addresses().begin(), peers.addresses().end()},
                             [this] { return drain_.requested(); });
  }

  RankChannel& channel_;
  ChannelListener& listener_;
  const DrainRequest& drain_;
  ChannelObserver observer_;
  Setup setup_;
  std::unique_ptr<BatchSource> train_data_;
  std::unique_ptr<BatchSource> eval_data_;
  std::unique_ptr<ModelFolder> initial_weights_;
  std::unique_ptr<RankRuntime> runtime_;
  std::unique_ptr<ProgressClock> progress_;
  StepLoad load_;
  std::unique_ptr<RankMonitor> monitor_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<Checkpoints> checkpoints_;
  std::unique_ptr<TrainLoop> loop_;
};

}  // namespace

int RunRank(RankChannel* channel, ChannelListener* listener, const DrainRequest* drain) {
  Rank rank(channel, listener, drain);
  const absl::StatusOr<TrainEnd> end = rank.Run();
  absl::Status status = end.status();
  int exit_code = ExitCodeOf(status);
  if (end.ok() && end->drained) {
    exit_code = kRankDrained;
  } else if (!end.ok() && exit_code == kRankRetry && drain->requested()) {
    // The peers that left first took their connections with them.
    exit_code = kRankDrained;
    status = absl::OkStatus();
  }
  LASP_LOG(kInfo, "leaving",
           {{"exit_code", exit_code}, {"step", rank.last_step()}, {"status", status.ToString()}});
  FromRank finished;
  // Where it was the rank's own doing, the next generation should not begin with it.
  if (exit_code == kRankRetry && ErrorReason(status).empty()) {
    if (std::optional<lasp::v1::StateLeft> left = rank.LeaveState(); left.has_value()) {
      *finished.mutable_finished()->mutable_state_left() = *std::move(left);
    }
  }
  *finished.mutable_finished()->mutable_status() = StatusToProto(status);
  finished.mutable_finished()->set_step(rank.last_step());
  const absl::Status told = channel->Write(finished);
  if (!told.ok()) {
    LASP_LOG(kWarning, "could not tell the agent", {{"status", told.ToString()}});
  }
  if (rank.write_hangs() && (end.ok() || exit_code == kRankSuspectHost)) {
    ::_exit(exit_code);
  }
  return exit_code;
}

}  // namespace lasp::worker
