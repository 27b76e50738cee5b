// The environment of a rank: an allow-list (PATH, LD_LIBRARY_PATH, NCCL_*, CUDA_*, OMP_*,
// OPENBLAS_*), so that what an operator exports for the agent (tokens among it) does not reach the
// processes that run jobs.
#pragma once

#include <string>
#include <vector>

namespace lasp::worker {

// CPU cores this process may use: by its affinity, and in time by its control groups.
int AvailableCores();

// `inherited` is environ's form, entries NAME=VALUE. Keeps what a rank needs and sets its BLAS and
// OpenMP threads to `threads`, waiting passively: ranks that share cores and spin while they wait
// run at half the speed. `gpu_uuid` names the one GPU that a rank sees and is empty for a rank on
// CPUs; with one, NCCL does without multicast through the switches (NVLS), which can put GPUs that
// others share out of service.
std::vector<std::string> RankEnvironment(const std::vector<std::string>& inherited, int threads,
                                         const std::string& gpu_uuid);

// environ, copied.
std::vector<std::string> OwnEnvironment();

}  // namespace lasp::worker
