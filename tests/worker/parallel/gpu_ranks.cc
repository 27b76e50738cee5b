#include "tests/worker/parallel/gpu_ranks.h"

#include <cstdlib>
#include <string>
#include <thread>

#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_backend.h"
#include "worker/parallel/nccl_world.h"

namespace lasp::worker {

absl::Status RunGpuRank(const GpuRanksOptions& options, int rank, const std::string& id,
                        const std::function<absl::Status(LocalRank&)>& body) {
  LASP_ASSIGN_OR_RETURN(const ProcessGrid grid,
                        ProcessGrid::Create(rank, options.sp_size, options.dp_size));
  LASP_ASSIGN_OR_RETURN(const auto backend, CreateCudaBackend({.device = rank}));
  CollectiveJournal journal;
  LASP_ASSIGN_OR_RETURN(const auto nccl, NcclWorld::Connect(backend.get(), grid, id,
                                                            {.connect_timeout = options.timeout,
                                                             .timeout = options.timeout,
                                                             .peer_copies = options.peer_copies,
                                                             .groups_shard = options.groups_shard,
                                                             .streams = options.streams,
                                                             .journal = &journal}));
  LocalRank local{.grid = grid,
                  .mesh = nullptr,
                  .backend = backend.get(),
                  .sp = &nccl->sp(),
                  .dp = &nccl->dp(),
                  .world = &nccl->world(),
                  .shards = nccl->shards(),
                  .wrap = nccl->wrap()};
  LASP_RETURN_IF_ERROR(body(local));
  LASP_RETURN_IF_ERROR(nccl->world().Barrier().Wait());
  return backend->Synchronize();
}

std::vector<absl::Status> RunGpuRanks(const GpuRanksOptions& options,
                                      const std::function<absl::Status(LocalRank&)>& body) {
  setenv("NCCL_NVLS_ENABLE", "0", 1);
  std::vector<absl::Status> statuses(static_cast<size_t>(options.sp_size * options.dp_size));
  const absl::StatusOr<std::string> id = MakeNcclId();
  if (!id.ok()) {
    statuses.assign(statuses.size(), id.status());
    return statuses;
  }
  std::vector<std::thread> threads;
  threads.reserve(statuses.size());
  for (size_t rank = 0; rank < statuses.size(); ++rank) {
    threads.emplace_back(
        [&, rank] { statuses[rank] = RunGpuRank(options, static_cast<int>(rank), *id, body); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return statuses;
}

}  // namespace lasp::worker
