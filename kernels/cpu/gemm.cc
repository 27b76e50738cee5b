#include "kernels/gemm.h"

#include <cblas.h>

namespace lasp::kernels::cpu {
namespace {

CBLAS_TRANSPOSE Operation(bool transpose) { return transpose ? CblasTrans : CblasNoTrans; }

void Call(const GemmArgs<float>& x) {
  cblas_sgemm(CblasRowMajor, Operation(x.transpose_a), Operation(x.transpose_b),
              static_cast<blasint>(x.m), static_cast<blasint>(x.n), static_cast<blasint>(x.k),
              x.alpha, x.a, static_cast<blasint>(x.a_stride), x.b, static_cast<blasint>(x.b_stride),
              x.beta, x.c, static_cast<blasint>(x.c_stride));
}

void Call(const GemmArgs<double>& x) {
  cblas_dgemm(CblasRowMajor, Operation(x.transpose_a), Operation(x.transpose_b),
              static_cast<blasint>(x.m), static_cast<blasint>(x.n), static_cast<blasint>(x.k),
              x.alpha, x.a, static_cast<blasint>(x.a_stride), x.b, static_cast<blasint>(x.b_stride),
              x.beta, x.c, static_cast<blasint>(x.c_stride));
}

}  // namespace

template <typename T>
void Gemm(const GemmArgs<T>& args) {
  if (args.m > 0 && args.n > 0) {
    Call(args);
  }
}

template void Gemm<float>(const GemmArgs<float>&);
template void Gemm<double>(const GemmArgs<double>&);

}  // namespace lasp::kernels::cpu
