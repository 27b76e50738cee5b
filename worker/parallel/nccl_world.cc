#include "worker/parallel/nccl_world.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_stream.h"

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

// One operation that is under way on the device.
struct Underway {
  uint32_t number = 0;
  absl::Duration since;
};

}  // namespace

absl::StatusOr<std::string> MakeNcclId() {
  LASP_RETURN_IF_ERROR(CheckMulticastIsOff());
  ncclUniqueId id;
  if (const ncclResult_t result = ncclGetUniqueId(&id); result != ncclSuccess) {
    return absl::UnavailableError(absl::StrCat("NCCL: making an id: ", ncclGetErrorString(result)));
  }
  return std::string(id.internal, sizeof(id.internal));
}

NcclWorld::NcclWorld(const NcclWorldOptions& options)
    : options_(options), connect_deadline_(SystemClock().Monotonic() + options.connect_timeout) {}

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
  if (id.size() != sizeof(unique.internal)) {
    return absl::InvalidArgumentError(
        absl::StrCat("an NCCL id has ", sizeof(unique.internal), " bytes, not ", id.size()));
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
  auto world = std::unique_ptr<NcclWorld>(new NcclWorld(options));
  LASP_ASSIGN_OR_RETURN(
      auto all,
      NcclCommunicator::Create(backend, communicator, "world", options.timeout,
                               [connecting = world.get()] { return connecting->Interruption(); }));
  world->communicators_.push_back(std::move(all));
  LASP_ASSIGN_OR_RETURN(auto sp, world->communicators_[0]->Split(grid.dp_rank(), grid.sp_rank(),
                                                                 "sequence parallel"));
  world->communicators_.push_back(std::move(sp));
  LASP_ASSIGN_OR_RETURN(
      auto dp, world->communicators_[0]->Split(grid.sp_rank(), grid.dp_rank(), "data parallel"));
  world->communicators_.push_back(std::move(dp));
  world->watcher_ = std::thread([watched = world.get()] { watched->Watch(); });
  LASP_RETURN_IF_ERROR(world->Warm(backend, grid));
  world->connected_ = true;
  return world;
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
  LASP_RETURN_IF_ERROR(world().AllReduceSum(token).Wait());
  if (grid.dp_size() > 1) {
    LASP_RETURN_IF_ERROR(dp().AllReduceSum(token).Wait());
  }
  LASP_RETURN_IF_ERROR(world().Barrier().Wait());
  return backend->Synchronize();
}

void NcclWorld::Abort(const absl::Status& why) {
  for (const auto& communicator : communicators_) {
    communicator->Abort(why);
  }
}

void NcclWorld::Watch() {
  std::vector<Underway> underway(communicators_.size());
  MutexLock lock(&mutex_);
  while (!stopping_) {
    changed_.WaitWithTimeout(&mutex_, kWatchInterval);
    const absl::Duration now = SystemClock().Monotonic();
    for (size_t i = 0; i < communicators_.size(); ++i) {
      NcclCommunicator& communicator = *communicators_[i];
      absl::Status status = communicator.AsyncStatus();
      status.Update(Interruption());
      const StreamProgress::Numbers progress = communicator.progress();
      if (progress.begun == progress.ended || progress.begun != underway[i].number) {
        underway[i] = {.number = progress.begun, .since = now};
      } else if (status.ok() && now - underway[i].since > options_.timeout) {
        status = absl::DeadlineExceededError(
            absl::StrCat("collective ", progress.begun, " of the ", communicator.name(),
                         " group has been under way for ", absl::FormatDuration(options_.timeout),
                         ": a peer hangs or is gone"));
      }
      if (!status.ok()) {
        LASP_LOG(kError, "aborting all communicators", {{"status", status.ToString()}});
        Abort(status);
        return;
      }
    }
  }
}

}  // namespace lasp::worker
