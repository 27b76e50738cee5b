#include "worker/parallel/nccl_world.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_stream.h"
#include "worker/parallel/nccl_meeting.h"

namespace lasp::worker {
namespace {

constexpr absl::Duration kWatchInterval = absl::Milliseconds(100);

// NVLink multicast objects outlive a killed process on some systems and then block the link.
absl::Status CheckMulticastIsOff() {
  const char* const value = std::getenv("NCCL_NVLS_ENABLE");
  if (value == nullptr || std::strcmp(value, "0") != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("NCCL_NVLS_ENABLE is ", value == nullptr ? "not set" : value,
                     ": lasp trains with NVLink multicast off, set it to 0"));
  }
  return absl::OkStatus();
}

// As an operator of NCCL would ask for it.
bool PeerCopiesAreWanted() {
  const char* const value = std::getenv("NCCL_P2P_DISABLE");
  return value == nullptr || std::strcmp(value, "1") != 0;
}

}  // namespace

absl::StatusOr<std::string> MakeNcclId() {
  LASP_RETURN_IF_ERROR(CheckMulticastIsOff());
  ncclUniqueId id;
  if (const ncclResult_t result = ncclGetUniqueId(&id); result != ncclSuccess) {
    return absl::UnavailableError(absl::StrCat("NCCL: making an id: ", ncclGetErrorString(result)));
  }
  return std::string(id.internal, sizeof(id.internal));
}

NcclWorld::NcclWorld(CudaBackend* backend, const NcclWorldOptions& options)
    : backend_(*backend),
      options_(options),
      connect_deadline_(SystemClock().Monotonic() + options.connect_timeout) {}

absl::Status NcclWorld::Interruption() const {
  if (connected_.load(std::memory_order_relaxed)) {
    return absl::OkStatus();
  }
  if (options_.give_up()) {
    return absl::CancelledError("told to give up before every rank was connected");
  }
  if (SystemClock().Monotonic() >= connect_deadline_) {
    return absl::UnavailableError(absl::StrCat("NCCL: not every rank has connected within ",
                                               absl::FormatDuration(options_.connect_timeout)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<NcclWorld>> NcclWorld::Connect(CudaBackend* backend,
                                                              const ProcessGrid& grid,
                                                              const std::string& id,
                                                              const NcclWorldOptions& options) {
  LASP_RETURN_IF_ERROR(CheckMulticastIsOff());
  ncclUniqueId unique;
  static_assert(sizeof(unique.internal) == kNcclIdBytes);
  if (id.size() != kNcclIdBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("an NCCL id has ", kNcclIdBytes, " bytes, not ", id.size()));
  }
  std::memcpy(unique.internal, id.data(), id.size());
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t communicator = nullptr;
  const ncclResult_t result =
      ncclCommInitRankConfig(&communicator, grid.world_size(), unique, grid.rank(), &config);
  if (result != ncclSuccess && result != ncclInProgress) {
    return absl::UnavailableError(
        absl::StrCat("NCCL: connecting the ranks: ", ncclGetErrorString(result)));
  }
  auto world = std::unique_ptr<NcclWorld>(new NcclWorld(backend, options));
  LASP_ASSIGN_OR_RETURN(
      auto all,
      NcclCommunicator::Create(backend, communicator, options.journal->Add("world", grid.World()),
                               "world", options.timeout,
                               [connecting = world.get()] { return connecting->Interruption(); }));
  world->nccl_.push_back(std::move(all));
  LASP_RETURN_IF_ERROR(world->Split(grid));
  world->watcher_ = std::thread([watched = world.get()] { watched->Watch(); });
  LASP_RETURN_IF_ERROR(world->Warm(backend, grid));
  if (options.peer_copies && PeerCopiesAreWanted()) {
    LASP_RETURN_IF_ERROR(world->ReachPeers(backend, grid));
    LASP_RETURN_IF_ERROR(world->world().Barrier().Wait());
  }
  world->connected_ = true;
  return world;
}

absl::Status NcclWorld::Split(const ProcessGrid& grid) {
  LASP_ASSIGN_OR_RETURN(auto sp,
                        nccl_[0]->Split(grid.dp_rank(), grid.sp_rank(),
                                        options_.journal->Add("sequence parallel", grid.SpGroup()),
                                        "sequence parallel"));
  nccl_.push_back(std::move(sp));
  LASP_ASSIGN_OR_RETURN(
      auto dp,
      nccl_[0]->Split(grid.sp_rank(), grid.dp_rank(),
                      options_.journal->Add("data parallel", grid.DpGroup()), "data parallel"));
  nccl_.push_back(std::move(dp));
  if (options_.groups_shard) {
    LASP_ASSIGN_OR_RETURN(
        auto shards, nccl_[0]->Split(grid.dp_rank(), grid.sp_rank(),
                                     options_.journal->Add("shards", grid.SpGroup()), "shards"));
    nccl_.push_back(std::move(shards));
  }
  if (options_.streams) {
    LASP_ASSIGN_OR_RETURN(auto wrap,
                          nccl_[0]->Split(grid.dp_rank(), grid.sp_rank(),
                                          options_.journal->Add("macro-chunk wrap", grid.SpGroup()),
                                          "macro-chunk wrap"));
    nccl_.push_back(std::move(wrap));
  }
  MutexLock lock(&mutex_);
  for (const auto& communicator : nccl_) {
    watched_.push_back({.group = communicator.get(), .number = 0, .since = {}});
  }
  return absl::OkStatus();
}

absl::Status NcclWorld::ReachPeers(CudaBackend* backend, const ProcessGrid& grid) {
  LASP_ASSIGN_OR_RETURN(
      world_peers_, PeerCommunicator::Create(
                        backend, nccl_[0].get(),
                        {.sums = true,
                         .name = "world, by copy engines",
                         .timeout = options_.timeout,
                         .log = options_.journal->Add("world, by copy engines", grid.World())}));
  LASP_ASSIGN_OR_RETURN(
      sp_peers_,
      PeerCommunicator::Create(
          backend, nccl_[1].get(),
          {.sums = false,
           .name = "sequence parallel, by copy engines",
           .timeout = options_.timeout,
           .log = options_.journal->Add("sequence parallel, by copy engines", grid.SpGroup())}));
  if (options_.groups_shard) {
    LASP_ASSIGN_OR_RETURN(
        shard_peers_, PeerCommunicator::Create(backend, nccl_[3].get(),
                                               {.sums = true,
                                                .name = "shards, by copy engines",
                                                .timeout = options_.timeout,
                                                .log = options_.journal->Add(
                                                    "shards, by copy engines", grid.SpGroup())}));
  }
  if (options_.streams) {
    LASP_ASSIGN_OR_RETURN(
        wrap_peers_,
        PeerCommunicator::Create(
            backend, nccl_[WrapGroup()].get(),
            {.sums = false,
             .name = "macro-chunk wrap, by copy engines",
             .timeout = options_.timeout,
             .log = options_.journal->Add("macro-chunk wrap, by copy engines", grid.SpGroup())}));
  }
  MutexLock lock(&mutex_);
  for (PeerCommunicator* const peers :
       {world_peers_.get(), sp_peers_.get(), shard_peers_.get(), wrap_peers_.get()}) {
    if (peers != nullptr) {
      // Before NCCL's: an abort there may wait for what waits for a peer here.
      watched_.insert(watched_.begin(), {.group = peers, .number = 0, .since = {}});
    }
  }
  return absl::OkStatus();
}

NcclWorld::~NcclWorld() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  if (watcher_.joinable()) {
    watcher_.join();
  }
  // All, before the first is freed.
  AbortAll(absl::CancelledError("the ranks' connections are closed"));
}

absl::Status NcclWorld::Warm(CudaBackend* backend, const ProcessGrid& grid) {
  LASP_ASSIGN_OR_RETURN(const auto memory, AllocateDeviceMemory(1 << 20));
  const Tensor token{memory->data(), DType::kFloat32, 1, memory->bytes() / 4, memory->bytes() / 4};
  // The state goes down the SP group in the forward pass and up in the backward pass.
  Communicator& group = sp();
  for (const int direction : {1, -1}) {
    const int from = group.rank() - direction;
    const int to = group.rank() + direction;
    if (from >= 0 && from < group.size()) {
      LASP_RETURN_IF_ERROR(group.Receive(token, from).Wait());
    }
    if (to >= 0 && to < group.size()) {
      LASP_RETURN_IF_ERROR(group.Send(token, to).Wait());
    }
  }
  if (Communicator* const ring = wrap(); ring != nullptr && ring->size() > 1) {
    const int last = ring->size() - 1;
    for (const auto& [from, to] : {std::pair(last, 0), std::pair(0, last)}) {
      if (ring->rank() == from) {
        LASP_RETURN_IF_ERROR(ring->Send(token, to).Wait());
      } else if (ring->rank() == to) {
        LASP_RETURN_IF_ERROR(ring->Receive(token, from).Wait());
      }
    }
  }
  LASP_RETURN_IF_ERROR(world().AllReduceSum(token).Wait());
  if (grid.dp_size() > 1) {
    LASP_RETURN_IF_ERROR(dp().AllReduceSum(token).Wait());
  }
  if (Communicator* const groups = shards(); groups != nullptr) {
    LASP_RETURN_IF_ERROR(groups->AllReduceSum(token).Wait());
  }
  LASP_RETURN_IF_ERROR(world().Barrier().Wait());
  return backend->Synchronize();
}

void NcclWorld::Abort(const absl::Status& why) {
  backend_.StopUpdates();
  AbortAll(why);
}

void NcclWorld::AbortAll(const absl::Status& why) {
  std::vector<Watched> all;
  {
    MutexLock lock(&mutex_);
    all = watched_;
  }
  for (const Watched& watched : all) {
    watched.group->Abort(why);
  }
}

absl::Status NcclWorld::Check(Watched* watched) const {
  LASP_RETURN_IF_ERROR(watched->group->AsyncStatus());
  LASP_RETURN_IF_ERROR(Interruption());
  const absl::Duration now = SystemClock().Monotonic();
  const StreamProgress::Numbers progress = watched->group->progress();
  if (progress.begun == progress.ended || progress.begun != watched->number) {
    watched->number = progress.begun;
    watched->since = now;
  } else if (now - watched->since > options_.timeout) {
    return absl::DeadlineExceededError(
        absl::StrCat("collective ", progress.begun, " of the ", watched->group->name(),
                     " group has been under way for ", absl::FormatDuration(options_.timeout),
                     ": a peer hangs or is gone"));
  }
  return absl::OkStatus();
}

absl::Status NcclWorld::AwaitFailure() {
  MutexLock lock(&mutex_);
  while (!stopping_) {
    changed_.WaitWithTimeout(&mutex_, kWatchInterval);
    for (Watched& watched : watched_) {
      LASP_RETURN_IF_ERROR(Check(&watched));
    }
  }
  return absl::OkStatus();
}

void NcclWorld::Watch() {
  if (const absl::Status status = AwaitFailure(); !status.ok()) {
    LASP_LOG(kError, "aborting all communicators", {{"status", status.ToString()}});
    Abort(status);
  }
}

}  // namespace lasp::worker
