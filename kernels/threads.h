// How many threads the CPU kernels of this process may use.
#pragma once

namespace lasp::kernels::cpu {

// Sets the threads of OpenMP loops and of BLAS, at least 1. Call it once, before the first kernel,
// from the thread that calls the kernels: OpenMP keeps the number per calling thread.
// Idle OpenMP threads wait as OMP_WAIT_POLICY says, which the process's starter sets.
void SetThreads(int threads);

}  // namespace lasp::kernels::cpu
