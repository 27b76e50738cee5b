#include "tests/worker/parallel/local_ranks.h"

#include <gtest/gtest.h>

#include <csignal>
#include <latch>
#include <thread>

#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

absl::StatusOr<std::unique_ptr<Backend>> BackendOf(const LocalRanksOptions& options) {
  return options.create_backend ? options.create_backend()
                                : CreateCpuBackend(options.compute_type, 1);
}

}  // namespace

absl::Status RunLocalRank(const LocalRanksOptions& options, int rank, const AddressSwap& swap,
                          const std::function<absl::Status(LocalRank&)>& body) {
  LASP_ASSIGN_OR_RETURN(const ProcessGrid grid,
                        ProcessGrid::Create(rank, options.sp_size, options.dp_size));
  LASP_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, BackendOf(options));
  auto mesh = GlooMesh::Create(rank, grid.world_size(), "local/1", "127.0.0.1", options.timeout);
  const absl::StatusOr<std::vector<std::string>> addresses =
      swap(mesh.ok() ? (*mesh)->Address() : "");
  LASP_RETURN_IF_ERROR(mesh.status());
  LASP_RETURN_IF_ERROR(addresses.status());
  LASP_RETURN_IF_ERROR((*mesh)->Connect(*addresses));
  const auto communicator = [&](std::vector<int> members, uint64_t place) {
    return std::make_unique<GlooCommunicator>(
        mesh->get(), backend.get(),
        GlooCommunicator::Options{.members = std::move(members),
                                  .slot = GlooCommunicator::kFirstSlot + place,
                                  .timeout = options.timeout});
  };
  const auto sp = communicator(grid.SpGroup(), 0);
  const auto world = communicator(grid.World(), 1);
  const auto dp = communicator(grid.DpGroup(), 2);
  const auto shards = communicator(grid.SpGroup(), 3);
  const auto wrap = communicator(grid.SpGroup(), 4);
  LocalRank local{.grid = grid,
                  .mesh = mesh->get(),
                  .backend = backend.get(),
                  .sp = sp.get(),
                  .dp = dp.get(),
                  .world = world.get(),
                  .shards = shards.get(),
                  .wrap = wrap.get()};
  return body(local);
}

std::vector<absl::Status> RunLocalRanks(const LocalRanksOptions& options,
                                        const std::function<absl::Status(LocalRank&)>& body) {
  // As lasp-rank does: a peer that has left is an error, not a signal.
  std::signal(SIGPIPE, SIG_IGN);
  const int world = options.sp_size * options.dp_size;
  std::vector<std::string> addresses(static_cast<size_t>(world));
  std::vector<absl::Status> statuses(static_cast<size_t>(world));
  std::latch published(world);
  std::latch finished(world);
  std::vector<std::thread> threads;
  threads.reserve(world);
  for (int rank = 0; rank < world; ++rank) {
    threads.emplace_back([&, rank] {
      bool counted = false;
      const auto swap = [&](const std::string& mine) {
        addresses[rank] = mine;
        published.arrive_and_wait();
        return addresses;
      };
      // The connections are still open while others finish.
      const auto finish_together = [&](LocalRank& local) -> absl::Status {
        absl::Status status = body(local);
        counted = true;
        finished.count_down();
        if (status.ok() && !options.leave_early) {
          finished.wait();
        }
        return status;
      };
      statuses[rank] = RunLocalRank(options, rank, swap, finish_together);
      if (!counted) {
        finished.count_down();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return statuses;
}

void ExpectLocalRanks(const LocalRanksOptions& options,
                      const std::function<absl::Status(LocalRank&)>& body) {
  const std::vector<absl::Status> statuses = RunLocalRanks(options, body);
  for (size_t rank = 0; rank < statuses.size(); ++rank) {
    EXPECT_TRUE(statuses[rank].ok()) << "rank " << rank << ": " << statuses[rank].ToString();
  }
}

}  // namespace lasp::worker
