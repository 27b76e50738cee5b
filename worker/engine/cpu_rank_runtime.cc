// The CPU in fp32, and TCP.
#include "worker/engine/cpu_rank_runtime.h"

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "worker/parallel/gloo_communicator.h"
#include "worker/parallel/gloo_mesh.h"

namespace lasp::worker {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Minutes(1);

class CpuRankRuntime : public RankRuntime {
 public:
  CpuRankRuntime(std::string generation, std::string host, const ProcessGrid& grid,
                 std::unique_ptr<Backend> backend)
      : generation_(std::move(generation)),
        host_(std::move(host)),
        grid_(grid),
        backend_(std::move(backend)) {}

  Backend& backend() override { return *backend_; }

  absl::StatusOr<std::string> Listen() override {
    LASP_ASSIGN_OR_RETURN(mesh_, GlooMesh::Create(grid_.rank(), grid_.world_size(), generation_,
                                                  host_, kConnectTimeout));
    return mesh_->Address();
  }

  absl::Status Connect(const std::vector<std::string>& addresses,
                       const std::function<bool()>& give_up) override {
    LASP_RETURN_IF_ERROR(mesh_->Connect(addresses, give_up));
    sp_ = std::make_unique<GlooCommunicator>(
        mesh_.get(), backend_.get(),
        GlooCommunicator::Options{.members = grid_.SpGroup(),
                                  .slot = GlooCommunicator::kFirstSlot,
                                  .log = journal_.Add("sequence parallel", grid_.SpGroup())});
    world_ = std::make_unique<GlooCommunicator>(
        mesh_.get(), backend_.get(),
        GlooCommunicator::Options{.members = grid_.World(),
                                  .slot = GlooCommunicator::kFirstSlot + 1,
                                  .log = journal_.Add("world", grid_.World())});
    return absl::OkStatus();
  }

  Communicator& sp() override { return *sp_; }

  Communicator& world() override { return *world_; }

  const CollectiveJournal& journal() const override { return journal_; }

  absl::StatusOr<std::string> AgreeOnAlgorithms() override { return std::string(); }

  // The communicators' destructors do it.
  void Abandon() override {}

 private:
  const std::string generation_;
  const std::string host_;
  const ProcessGrid grid_;
  const std::unique_ptr<Backend> backend_;
  CollectiveJournal journal_;
  std::unique_ptr<GlooMesh> mesh_;
  std::unique_ptr<Communicator> sp_;
  std::unique_ptr<Communicator> world_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RankRuntime>> CreateCpuRankRuntime(
    const lasp::internal::v1::Setup& setup, const ProcessGrid& grid) {
  LASP_ASSIGN_OR_RETURN(auto backend, CreateCpuBackend(DType::kFloat32, setup.threads()));
  const lasp::v1::Fence& fence = setup.fence();
  return std::make_unique<CpuRankRuntime>(
      absl::StrCat(fence.training_job(), "/", fence.uid(), "/", fence.generation()),
      setup.rank_address(), grid, std::move(backend));
}

}  // namespace lasp::worker
