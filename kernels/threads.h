// How many threads the CPU kernels of this process may use.
#pragma once

namespace lasp::kernels::cpu {

// Sets the threads of OpenMP loops and of BLAS, at least 1. Call it once, before the first kernel,
// from the thread that calls the kernels: OpenMP keeps the number per calling thread.
// Idle OpenMP threads wait as OMP_WAIT_POLICY says, which the process's starter sets.
void SetThreads(int threads);

// Sets the threads of OpenMP loops for the calling thread alone: for a second thread that calls
// kernels beside the first one. BLAS, which is set for the process, is left as it is.
void SetCallerThreads(int threads);

}  // namespace lasp::kernels::cpu
