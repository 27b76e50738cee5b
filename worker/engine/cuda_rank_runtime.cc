// One Hopper GPU, the first that this process sees, and NCCL.
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "proto/rpc/worker_limits.h"
#include "proto/spec/gpu_support.h"
#include "proto/spec/softmax_support.h"
#include "worker/device/cuda_backend.h"
#include "worker/device/cuda_softmax.h"
#include "worker/engine/exit_code.h"
#include "worker/engine/rank_runtime.h"
#include "worker/engine/strategies.h"
#include "worker/parallel/nccl_world.h"
#include "worker/parallel/network_interface.h"

namespace lasp::worker {
namespace {

// Of all ranks but the first, whose address is NCCL's id, over which the others find one another.
constexpr char kNoAddress[] = "-";

// What NCCL reads from the environment, which goes before where it says something: NVLink multicast
// off, and the network interface of `host`, this host's address for other ranks.
absl::Status ConfigureNccl(const std::string& host) {
  ::setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0);
  if (std::getenv("NCCL_SOCKET_IFNAME") == nullptr) {
    LASP_ASSIGN_OR_RETURN(const std::string interface, InterfaceOf(host));
    // The equals sign: that name, not every name that begins so.
    ::setenv("NCCL_SOCKET_IFNAME", absl::StrCat("=", interface).c_str(), /*overwrite=*/1);
  }
  return absl::OkStatus();
}

// Rank 0's text on every rank; empty where it is too long. At most kMaxGemmRecordBytes.
absl::StatusOr<std::string> BroadcastText(std::string text, Backend& backend, Communicator& world) {
  // Its size, then its bytes.
  std::string message(sizeof(int64_t) + kMaxGemmRecordBytes, '\0');
  if (text.size() > kMaxGemmRecordBytes) {
    text.clear();
  }
  auto size = static_cast<int64_t>(text.size());
  std::memcpy(message.data(), &size, sizeof size);
  std::memcpy(message.data() + sizeof size, text.data(), text.size());
  const auto bytes = static_cast<int64_t>(message.size());
  LASP_ASSIGN_OR_RETURN(const auto memory, backend.Allocate(bytes));
  const Tensor tensor{memory->data(), DType::kInt32, 1, bytes / 4, bytes / 4};
  backend.CopyFromHost(message.data(), tensor);
  LASP_RETURN_IF_ERROR(world.Broadcast(tensor, 0).Wait());
  backend.CopyToHost(tensor, message.data());
  LASP_RETURN_IF_ERROR(backend.Synchronize());
  std::memcpy(&size, message.data(), sizeof size);
  if (size < 0 || size > static_cast<int64_t>(kMaxGemmRecordBytes)) {
    return absl::InternalError("rank 0's choice of matrix products arrived garbled");
  }
  return message.substr(sizeof size, static_cast<size_t>(size));
}

class CudaRankRuntime : public RankRuntime {
 public:
  CudaRankRuntime(const ProcessGrid& grid, bool groups_shard, bool streams,
                  std::unique_ptr<CudaBackend> backend)
      : grid_(grid), groups_shard_(groups_shard), streams_(streams), backend_(std::move(backend)) {}

  Backend& backend() override { return *backend_; }

  absl::StatusOr<std::string> Listen() override {
    return grid_.rank() == 0 ? MakeNcclId() : std::string(kNoAddress);
  }

  absl::Status Connect(const std::vector<std::string>& addresses,
                       const std::function<bool()>& give_up) override {
    if (addresses.empty()) {
      return absl::InvalidArgumentError("rank 0 has no address");
    }
    LASP_ASSIGN_OR_RETURN(nccl_, NcclWorld::Connect(backend_.get(), grid_, addresses[0],
                                                    {.groups_shard = groups_shard_,
                                                     .streams = streams_,
                                                     .journal = &journal_,
                                                     .give_up = give_up}));
    return absl::OkStatus();
  }

  Communicator& sp() override { return nccl_->sp(); }

  Communicator& world() override { return nccl_->world(); }

  Communicator* shards() override { return nccl_->shards(); }

  Communicator* replicas() override { return groups_shard_ ? &nccl_->dp() : nullptr; }

  Communicator* wrap() override { return nccl_->wrap(); }

  const CollectiveJournal& journal() const override { return journal_; }

  absl::StatusOr<std::string> AgreeOnAlgorithms() override {
    LASP_ASSIGN_OR_RETURN(std::string record,
                          BroadcastText(backend_->GemmRecord(), *backend_, nccl_->world()));
    if (!record.empty() && grid_.rank() != 0) {
      LASP_ASSIGN_OR_RETURN(const bool pinned, backend_->PinGemms(record));
      if (!pinned) {
        LASP_LOG(kWarning, "rank 0 is on another kind of GPU: matrix products are chosen apart",
                 {});
      }
    }
    return record;
  }

  void Abandon() override {
    if (nccl_ != nullptr) {
      nccl_->Abort(absl::CancelledError("the rank has ended"));
    }
  }

 private:
  const ProcessGrid grid_;
  const bool groups_shard_;
  const bool streams_;
  const std::unique_ptr<CudaBackend> backend_;
  CollectiveJournal journal_;
  std::unique_ptr<NcclWorld> nccl_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RankRuntime>> CreateRankRuntime(
    const lasp::internal::v1::Setup& setup, const ProcessGrid& grid) {
  if (const std::string reason = ReasonAgainstGpus(setup.spec().model()); !reason.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("spec.model.heads ", reason));
  }
  if (const std::string reason =
          ReasonAgainstGpus(setup.spec().parallelism().sequence_parallel(), setup.spec().model());
      !reason.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("spec.parallelism.sequence_parallel.method ", reason));
  }
  // Before CUDA starts threads, which may read the environment.
  if (SoftmaxLayers(setup.spec().model()) > 0) {
    LASP_RETURN_IF_ERROR(LoadSoftmaxAttention());
  }
  LASP_RETURN_IF_ERROR(ConfigureNccl(setup.rank_address()));
  absl::StatusOr<std::unique_ptr<CudaBackend>> opened = CreateCudaBackend({});
  if (!opened.ok()) {
    return SuspectHostError(opened.status());
  }
  std::unique_ptr<CudaBackend> backend = *std::move(opened);
  if (!setup.gemm_record().empty()) {
    const absl::StatusOr<bool> pinned = backend->PinGemms(setup.gemm_record());
    if (!pinned.ok() || !*pinned) {
      LASP_LOG(kWarning, "an earlier generation's matrix products do not fit here: chosen anew",
               {{"status", pinned.status().ToString()}});
    }
  }
  return std::make_unique<CudaRankRuntime>(grid, GroupsShard(setup.spec().parallelism()),
                                           Streams(setup.spec()), std::move(backend));
}

const char* RankProgramName() { return "lasp-rank-cuda"; }

}  // namespace lasp::worker
