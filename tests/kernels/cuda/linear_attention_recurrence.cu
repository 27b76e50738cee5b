#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/kernels/cuda/linear_attention_recurrence.h"

namespace lasp::kernels {
namespace {

using cuda::Bf16;

constexpr int kColumns = 128;  // threads along Z's columns
constexpr int kSlices = 8;     // of the state's rows
constexpr int kRows = 16;      // of a slice, at most
constexpr int kThreads = kColumns * kSlices;

enum class Rotate { kNone, kKeys, kValues };

// LA(X, Y, Z)_i = sum_j lambda^{i-j} (x_i . y_j) z_j, one block a (batch, head). With LRPE a pass
// does one half of the state: X and Y, or Z and the output, are multiplied by cosines or sines of
// theta times their distance from `origin`.
struct Pass {
  LinearAttentionShape shape;
  const uint8_t* starts;
  HeadsView<const Bf16> x;
  HeadsView<const Bf16> y;
  HeadsView<const Bf16> z;
  int x_size;  // of X and Y
  int z_size;  // of Z and the output
  // Element (row, column) of the state lies at row * row_stride + column * column_stride.
  int64_t row_stride;
  int64_t column_stride;
  int64_t state_size;  // of the whole state of one pair
  const float* state_in;
  double* state_out;
  double* output;  // [batch, tokens, heads, z_size]
  bool reverse;
  Rotate rotate = Rotate::kNone;
  bool sine = false;  // also: adds to the output of the cosine half
  int64_t origin = 0;
  HeadsView<const Bf16> source = {};  // q or k, where the output is its gradient
  double* theta_gradient = nullptr;

  __device__ double Factor(int64_t head, int64_t column, int64_t token) const {
    const double angle =
        shape.theta[head * shape.key_size + column] * static_cast<double>(token - origin);
    return sine ? sin(angle) : cos(angle);
  }
};

__global__ void __launch_bounds__(kThreads) RecurrenceKernel(const Pass pass) {
  __shared__ double x[kRows * kSlices];
  __shared__ double y[kRows * kSlices];
  __shared__ double partial[kSlices][kColumns];
  const int head = static_cast<int>(blockIdx.x);
  const int batch = static_cast<int>(blockIdx.y);
  const int column = static_cast<int>(threadIdx.x) % kColumns;
  const int slice = static_cast<int>(threadIdx.x) / kColumns;
  const int64_t pair = static_cast<int64_t>(batch) * pass.shape.heads + head;
  const double lambda = exp(-pass.shape.slopes[head]);
  const int rows = (pass.x_size + kSlices - 1) / kSlices;
  const bool active = column < pass.z_size;
  double state[kRows];
  for (int r = 0; r < kRows; ++r) {
    const int row = slice * rows + r;
    const bool exists = r < rows && row < pass.x_size && active;
    state[r] =
        exists && pass.state_in != nullptr
            ? static_cast<double>(pass.state_in[pair * pass.state_size + row * pass.row_stride +
                                                column * pass.column_stride])
            : 0.0;
  }
  const auto at = [&](const HeadsView<const Bf16>& view, int64_t token) {
    return view.data + batch * view.batch_stride + token * view.token_stride +
           head * view.head_stride;
  };
  double theta_sum = 0;
  for (int64_t n = 0; n < pass.shape.tokens; ++n) {
    const int64_t token = pass.reverse ? pass.shape.tokens - 1 - n : n;
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < pass.x_size; i += kThreads) {
      x[i] = static_cast<double>(__bfloat162float(at(pass.x, token)[i]));
      y[i] = static_cast<double>(__bfloat162float(at(pass.y, token)[i]));
      if (pass.rotate == Rotate::kKeys) {
        const double factor = pass.Factor(head, i, token);
        x[i] *= factor;
        y[i] *= factor;
      }
    }
    double z = active ? static_cast<double>(__bfloat162float(at(pass.z, token)[column])) : 0.0;
    const double z_factor =
        active && pass.rotate == Rotate::kValues ? pass.Factor(head, column, token) : 1.0;
    z *= z_factor;
    const bool start =
        pass.starts != nullptr && pass.starts[batch * pass.shape.tokens + token] != 0;
    __syncthreads();
    double sum = 0;
    for (int r = 0; r < kRows; ++r) {
      const int row = slice * rows + r;
      if (r < rows && row < pass.x_size) {
        if (pass.reverse) {
          state[r] += y[row] * z;
          sum += x[row] * state[r];
          state[r] = start ? 0.0 : state[r] * lambda;
        } else {
          state[r] = (start ? 0.0 : state[r] * lambda) + y[row] * z;
          sum += x[row] * state[r];
        }
      }
    }
    partial[slice][column] = sum;
    __syncthreads();
    if (slice == 0 && active && pass.output != nullptr) {
      double total = 0;
      for (int s = 0; s < kSlices; ++s) {
        total += partial[s][column];
      }
      double& output = pass.output[((batch * pass.shape.tokens + token) * pass.shape.heads + head) *
                                       pass.z_size +
                                   column];
      output = (pass.sine ? output : 0.0) + total * z_factor;
      if (pass.theta_gradient != nullptr) {
        const double angle = pass.shape.theta[head * pass.shape.key_size + column] *
                             static_cast<double>(token - pass.origin);
        theta_sum += static_cast<double>(token) *
                     static_cast<double>(__bfloat162float(at(pass.source, token)[column])) * total *
                     (pass.sine ? cos(angle) : -sin(angle));
      }
    }
  }
  if (pass.theta_gradient != nullptr && slice == 0 && active) {
    atomicAdd(pass.theta_gradient + head * pass.shape.key_size + column, theta_sum);
  }
  if (pass.state_out != nullptr) {
    for (int r = 0; r < kRows; ++r) {
      const int row = slice * rows + r;
      if (r < rows && row < pass.x_size && active) {
        pass.state_out[pair * pass.state_size + row * pass.row_stride +
                       column * pass.column_stride] = state[r];
      }
    }
  }
}

void RunHalf(const Pass& pass) {
  RecurrenceKernel<<<dim3(static_cast<unsigned>(pass.shape.heads),
                          static_cast<unsigned>(pass.shape.batch)),
                     kThreads>>>(pass);
}

// Moves the origins of states [pairs, 2 key_size, value_size] ahead by some tokens.
__global__ void TurnKernel(LinearAttentionShape shape, int64_t tokens, double* states) {
  const int64_t elements = shape.key_size * shape.value_size;
  const int64_t pair = blockIdx.y;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= elements) {
    return;
  }
  const double angle = shape.theta[pair % shape.heads * shape.key_size + i / shape.value_size] *
                       static_cast<double>(tokens);
  double& cosine = states[pair * 2 * elements + i];
  double& sine = states[(pair * 2 + 1) * elements + i];
  const double a = cosine;
  const double b = sine;
  cosine = a * cos(angle) + b * sin(angle);
  sine = b * cos(angle) - a * sin(angle);
}

// A state's own origin is at the slice's first token, a gradient's at the token after the slice.
void Run(Pass pass, Rotate rotate) {
  if (pass.shape.theta == nullptr) {
    RunHalf(pass);
    return;
  }
  const int64_t elements = pass.shape.key_size * pass.shape.value_size;
  double* const state_out = pass.state_out;
  pass.rotate = rotate;
  pass.origin = pass.reverse ? pass.shape.tokens : 0;
  RunHalf(pass);
  pass.sine = true;
  pass.state_in = pass.state_in == nullptr ? nullptr : pass.state_in + elements;
  pass.state_out = state_out == nullptr ? nullptr : state_out + elements;
  RunHalf(pass);
  if (state_out != nullptr) {
    TurnKernel<<<dim3(static_cast<unsigned>((elements + 255) / 256),
                      static_cast<unsigned>(pass.shape.batch * pass.shape.heads)),
                 256>>>(pass.shape, pass.reverse ? -pass.shape.tokens : pass.shape.tokens,
                        state_out);
  }
}

__device__ float Normal(uint64_t seed, int64_t i) {
  uint64_t x =
      (static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15ull + seed * 0xd1342543de82ef95ull;
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  x ^= x >> 31;
  const float u = (static_cast<float>(x >> 40) + 0.5F) / 16777216.0F;
  const float w = static_cast<float>(x & 0xffffff) / 16777216.0F;
  return sqrtf(-2 * logf(u)) * cospif(2 * w);
}

template <typename T>
__global__ void NormalKernel(int64_t count, uint64_t seed, float deviation, T* values) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    values[i] = static_cast<T>(deviation * Normal(seed, i));
  }
}

struct ViewValue {
  HeadsView<const Bf16> x;

  __device__ double operator()(int64_t batch, int64_t token, int64_t head, int64_t column) const {
    return static_cast<double>(__bfloat162float(
        x.data[batch * x.batch_stride + token * x.token_stride + head * x.head_stride + column]));
  }
};

struct StateValue {
  const float* x;
  int64_t elements;

  __device__ double operator()(int64_t pair, int64_t, int64_t, int64_t column) const {
    return static_cast<double>(x[pair * elements + column]);
  }
};

struct Sums {
  double difference;
  double reference;
};

// One block a (batch, head).
template <typename Value>
__global__ void ErrorKernel(Value value, const double* reference, int64_t tokens, int64_t heads,
                            int64_t width, Sums* sums) {
  __shared__ double difference[256];
  __shared__ double norm[256];
  const int64_t head = blockIdx.x;
  const int64_t batch = blockIdx.y;
  double d = 0;
  double r = 0;
  for (int64_t i = threadIdx.x; i < tokens * width; i += 256) {
    const int64_t token = i / width;
    const int64_t column = i % width;
    const double expected = reference[((batch * tokens + token) * heads + head) * width + column];
    const double error = value(batch, token, head, column) - expected;
    d += error * error;
    r += expected * expected;
  }
  difference[threadIdx.x] = d;
  norm[threadIdx.x] = r;
  __syncthreads();
  if (threadIdx.x == 0) {
    Sums sum = {0, 0};
    for (int i = 0; i < 256; ++i) {
      sum.difference += difference[i];
      sum.reference += norm[i];
    }
    sums[batch * heads + head] = sum;
  }
}

template <typename Value>
double WorstError(Value value, const double* reference, int64_t batch, int64_t tokens,
                  int64_t heads, int64_t width) {
  Sums* device = nullptr;
  const auto count = static_cast<size_t>(batch * heads);
  std::vector<Sums> sums(count);
  if (cudaMalloc(reinterpret_cast<void**>(&device), count * sizeof(Sums)) != cudaSuccess) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  ErrorKernel<<<dim3(static_cast<unsigned>(heads), static_cast<unsigned>(batch)), 256>>>(
      value, reference, tokens, heads, width, device);
  const cudaError_t error =
      cudaMemcpy(sums.data(), device, count * sizeof(Sums), cudaMemcpyDeviceToHost);
  (void)cudaFree(device);
  double worst = error == cudaSuccess ? 0.0 : std::numeric_limits<double>::quiet_NaN();
  for (const Sums& sum : sums) {
    const double relative = sum.reference == 0 ? (sum.difference == 0 ? 0.0 : 1e30)
                                               : std::sqrt(sum.difference / sum.reference);
    worst = relative > worst || std::isnan(relative) ? relative : worst;
    if (std::isnan(worst)) {
      break;
    }
  }
  return worst;
}

}  // namespace

cudaError_t RunRecurrence(const Recurrence& r) {
  const auto keys = static_cast<int>(r.shape.key_size);
  const auto values = static_cast<int>(r.shape.value_size);
  const Pass base = {.shape = r.shape,
                     .starts = r.starts,
                     .x = r.q,
                     .y = r.k,
                     .z = r.v,
                     .x_size = keys,
                     .z_size = values,
                     .row_stride = values,
                     .column_stride = 1,
                     .state_size = StateRows(r.shape) * values,
                     .state_in = r.state_in,
                     .state_out = r.state_out,
                     .output = r.output,
                     .reverse = false};
  if (r.output != nullptr || r.state_out != nullptr) {
    Run(base, Rotate::kKeys);
  }
  if (r.q_gradient != nullptr) {
    Pass pass = base;
    pass.x = r.output_gradient;
    pass.y = r.v;
    pass.z = r.k;
    pass.x_size = values;
    pass.z_size = keys;
    pass.row_stride = 1;
    pass.column_stride = values;
    pass.state_out = nullptr;
    pass.output = r.q_gradient;
    pass.source = r.q;
    pass.theta_gradient = r.theta_gradient;
    Run(pass, Rotate::kValues);
  }
  if (r.v_gradient != nullptr || r.state_gradient_out != nullptr) {
    Pass pass = base;
    pass.x = r.k;
    pass.y = r.q;
    pass.z = r.output_gradient;
    pass.state_in = r.state_gradient_in;
    pass.state_out = r.state_gradient_out;
    pass.output = r.v_gradient;
    pass.reverse = true;
    Run(pass, Rotate::kKeys);
  }
  if (r.k_gradient != nullptr) {
    Pass pass = base;
    pass.x = r.v;
    pass.y = r.output_gradient;
    pass.z = r.q;
    pass.x_size = values;
    pass.z_size = keys;
    pass.row_stride = 1;
    pass.column_stride = values;
    pass.state_in = r.state_gradient_in;
    pass.state_out = nullptr;
    pass.output = r.k_gradient;
    pass.source = r.k;
    pass.theta_gradient = r.theta_gradient;
    pass.reverse = true;
    Run(pass, Rotate::kValues);
  }
  return cudaGetLastError();
}

cudaError_t FillNormal(int64_t count, uint64_t seed, float deviation, Bf16* values) {
  NormalKernel<<<1024, 256>>>(count, seed, deviation, values);
  return cudaGetLastError();
}

cudaError_t FillNormal(int64_t count, uint64_t seed, float deviation, float* values) {
  NormalKernel<<<1024, 256>>>(count, seed, deviation, values);
  return cudaGetLastError();
}

double WorstHeadError(const HeadsView<const Bf16>& x, const double* reference, int64_t batch,
                      int64_t tokens, int64_t heads, int64_t width) {
  return WorstError(ViewValue{x}, reference, batch, tokens, heads, width);
}

double WorstHeadError(const float* x, const double* reference, int64_t pairs, int64_t elements) {
  return WorstError(StateValue{x, elements}, reference, pairs, 1, 1, elements);
}

}  // namespace lasp::kernels
