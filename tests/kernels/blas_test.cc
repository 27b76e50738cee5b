// Which OpenBLAS the kernels run on.
#include <cblas.h>
#include <gtest/gtest.h>

namespace lasp::kernels {
namespace {

// The build on threads of its own keeps a second pool beside OpenMP's, and its threads spin in
// sched_yield while they wait.
TEST(BlasTest, IsTheBuildThatSharesTheThreadsOfOpenMp) {
  EXPECT_EQ(openblas_get_parallel(), OPENBLAS_OPENMP)
      << "configure anew, so that LASP_OPENBLAS is looked for again";
}

}  // namespace
}  // namespace lasp::kernels
