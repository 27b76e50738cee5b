// All ranks of a small world in one process: a thread each, connected over loopback as real ones
// are.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/backend.h"
#include "worker/parallel/gloo_communicator.h"
#include "worker/parallel/gloo_mesh.h"
#include "worker/parallel/process_grid.h"

namespace lasp::worker {

// What a rank's body works with.
struct LocalRank {
  ProcessGrid grid;
  GlooMesh* mesh;
  Backend* backend;
  Communicator* sp;
  Communicator* dp;
  Communicator* world;
  Communicator* shards;          // the SP group once more; null where nobody asked for it
  Communicator* wrap = nullptr;  // the SP group once more
};

struct LocalRanksOptions {
  int sp_size = 1;
  int dp_size = 1;
  DType compute_type = DType::kFloat32;
  // Where given, makes a rank's backend instead of the CPU's.
  std::function<absl::StatusOr<std::unique_ptr<Backend>>()> create_backend = {};
  absl::Duration timeout = absl::Seconds(30);
  // A rank whose body succeeds closes its connections at once, instead of waiting for the others.
  bool leave_early = false;
};

// Gives away where a rank listens, empty where it cannot, and returns where all ranks do.
using AddressSwap =
    std::function<absl::StatusOr<std::vector<std::string>>(const std::string& mine)>;

// One rank, on this thread: of a world whose other ranks run elsewhere.
absl::Status RunLocalRank(const LocalRanksOptions& options, int rank, const AddressSwap& swap,
                          const std::function<absl::Status(LocalRank&)>& body);

// Runs `body` for each rank on a thread of its own, with one BLAS and OpenMP thread, and returns
// each rank's status in rank order. The connections of a rank whose body fails close at once.
std::vector<absl::Status> RunLocalRanks(const LocalRanksOptions& options,
                                        const std::function<absl::Status(LocalRank&)>& body);

// The same, where every rank is to succeed: reports what does not as a test failure.
void ExpectLocalRanks(const LocalRanksOptions& options,
                      const std::function<absl::Status(LocalRank&)>& body);

}  // namespace lasp::worker
