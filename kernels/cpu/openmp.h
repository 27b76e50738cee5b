// The OpenMP calls that the kernels make. <omp.h> belongs to one compiler and is missing beside the
// others that read this code (clang-tidy's); the calls themselves are the same everywhere.
#pragma once

extern "C" {
int omp_get_max_threads();
int omp_get_num_threads();
int omp_get_thread_num();
void omp_set_num_threads(int threads);
}
