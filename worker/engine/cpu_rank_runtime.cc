// The CPU in fp32, and TCP.
#include "worker/engine/cpu_rank_runtime.h"

#include "proto/rpc/status_macros.h"
#include "worker/engine/strategies.h"
#include "worker/parallel/gloo_communicator.h"
#include "worker/parallel/gloo_mesh.h"
#include "worker/parallel/peer_rendezvous.h"

namespace lasp::worker {
namespace {

class CpuRankRuntime : public RankRuntime {
 public:
  CpuRankRuntime(std::string generation, std::string host, const ProcessGrid& grid,
                 bool groups_shard, bool streams, std::unique_ptr<Backend> backend)
      : generation_(std::move(generation)),
        host_(std::move(host)),
        grid_(grid),
        groups_shard_(groups_shard),
        streams_(streams),
        backend_(std::move(backend)) {}

  Backend& backend() override { return *backend_; }

  absl::StatusOr<std::string> Listen() override {
    LASP_ASSIGN_OR_RETURN(mesh_, GlooMesh::Create(grid_.rank(), grid_.world_size(), generation_,
                                                  host_, kMeetingTimeout));
    return mesh_->Address();
  }

  absl::Status Connect(const std::vector<std::string>& addresses,
                       const std::function<bool()>& give_up) override {
    LASP_RETURN_IF_ERROR(mesh_->Connect(addresses, give_up));
    const auto connect = [this](const char* name, const std::vector<int>& members, uint64_t place) {
      return std::make_unique<GlooCommunicator>(
          mesh_.get(), backend_.get(),
          GlooCommunicator::Options{.members = members,
                                    .slot = GlooCommunicator::kFirstSlot + place,
                                    .log = journal_.Add(name, members)});
    };
    sp_ = connect("sequence parallel", grid_.SpGroup(), 0);
    world_ = connect("world", grid_.World(), 1);
    if (groups_shard_) {
      shards_ = connect("shards", grid_.SpGroup(), 2);
      replicas_ = connect("data parallel", grid_.DpGroup(), 3);
    }
    if (streams_) {
      wrap_ = connect("macro-chunk wrap", grid_.SpGroup(), 4);
    }
    return absl::OkStatus();
  }

  Communicator& sp() override { return *sp_; }

  Communicator& world() override { return *world_; }

  Communicator* shards() override { return shards_.get(); }

  Communicator* replicas() override { return replicas_.get(); }

  Communicator* wrap() override { return wrap_.get(); }

  const CollectiveJournal& journal() const override { return journal_; }

  absl::StatusOr<std::string> AgreeOnAlgorithms() override { return std::string(); }

  void Abandon() override {
    for (GlooCommunicator* const group :
         {sp_.get(), world_.get(), shards_.get(), replicas_.get(), wrap_.get()}) {
      if (group != nullptr) {
        group->Abort();
      }
    }
  }

 private:
  const std::string generation_;
  const std::string host_;
  const ProcessGrid grid_;
  const bool groups_shard_;
  const bool streams_;
  const std::unique_ptr<Backend> backend_;
  CollectiveJournal journal_;
  std::unique_ptr<GlooMesh> mesh_;
  std::unique_ptr<GlooCommunicator> sp_;
  std::unique_ptr<GlooCommunicator> world_;
  std::unique_ptr<GlooCommunicator> shards_;
  std::unique_ptr<GlooCommunicator> replicas_;
  std::unique_ptr<GlooCommunicator> wrap_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RankRuntime>> CreateCpuRankRuntime(
    const lasp::internal::v1::Setup& setup, const ProcessGrid& grid) {
  LASP_ASSIGN_OR_RETURN(auto backend, CreateCpuBackend(DType::kFloat32, setup.threads()));
  return std::make_unique<CpuRankRuntime>(GenerationName(setup.fence()), setup.rank_address(), grid,
                                          GroupsShard(setup.spec().parallelism()),
                                          Streams(setup.spec()), std::move(backend));
}

}  // namespace lasp::worker
