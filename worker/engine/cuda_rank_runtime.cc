// One Hopper GPU, the first that this process sees, and NCCL.
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "proto/rpc/protocol_range.h"
#include "proto/rpc/status_macros.h"
#include "proto/rpc/worker_limits.h"
#include "proto/spec/gpu_support.h"
#include "proto/spec/softmax_support.h"
#include "worker/device/cuda_backend.h"
#include "worker/device/cuda_softmax.h"
#include "worker/engine/exit_code.h"
#include "worker/engine/rank_runtime.h"
#include "worker/engine/strategies.h"
#include "worker/parallel/nccl_meeting.h"
#include "worker/parallel/nccl_world.h"
#include "worker/parallel/network_interface.h"
#include "worker/parallel/peer_rendezvous.h"

namespace lasp::worker {
namespace {

// Where ranks do not meet (kMeetingProtocol), of all but the first, whose address is NCCL's id.
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
  CudaRankRuntime(const lasp::internal::v1::Setup& setup, const ProcessGrid& grid,
                  std::unique_ptr<CudaBackend> backend)
      : generation_(GenerationName(setup.fence())),
        host_(setup.rank_address()),
        meets_(setup.peers_protocol_version() >= kMeetingProtocol),
        grid_(grid),
        groups_shard_(GroupsShard(setup.spec().parallelism())),
        streams_(Streams(setup.spec())),
        backend_(std::move(backend)) {}

  Backend& backend() override { return *backend_; }

  absl::StatusOr<std::string> Listen() override {
    std::string id;
    if (grid_.rank() == 0) {
      LASP_ASSIGN_OR_RETURN(id, MakeNcclId());
    }
    if (!meets_) {
      return id.empty() ? kNoAddress : id;
    }
    LASP_ASSIGN_OR_RETURN(meeting_, NcclMeeting::Listen(grid_.rank(), grid_.world_size(),
                                                        generation_, host_, std::move(id)));
    return meeting_->Address();
  }

  absl::Status Connect(const std::vector<std::string>& addresses,
                       const std::function<bool()>& give_up) override {
    if (addresses.empty()) {
      return absl::InvalidArgumentError("rank 0 has no address");
    }
    std::string id = addresses[0];
    if (meets_) {
      LASP_ASSIGN_OR_RETURN(id, meeting_->Meet(addresses, kMeetingTimeout, give_up));
    }
    LASP_ASSIGN_OR_RETURN(nccl_, NcclWorld::Connect(backend_.get(), grid_, id,
                                                    {.groups_shard = groups_shard_,
                                                     .streams = streams_,
                                                     .journal = &journal_,
                                                     .give_up = give_up}));
    meeting_.reset();
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
  const std::string generation_;
  const std::string host_;
  // All ranks of the generation do, or none.
  const bool meets_;
  const ProcessGrid grid_;
  const bool groups_shard_;
  const bool streams_;
  const std::unique_ptr<CudaBackend> backend_;
  CollectiveJournal journal_;
  std::unique_ptr<NcclMeeting> meeting_;
  std::unique_ptr<NcclWorld> nccl_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RankRuntime>> CreateRankRuntime(
    const lasp::internal::v1::Setup& setup, const ProcessGrid& grid) {
  if (const std::vector<GpuRefusal> refusals = RefusalsByGpus(setup.spec()); !refusals.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(refusals.front().field, " ", refusals.front().reason));
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
  return std::make_unique<CudaRankRuntime>(setup, grid, std::move(backend));
}

const char* RankProgramName() { return "lasp-rank-cuda"; }

}  // namespace lasp::worker
