// Times linear attention on this machine's GPU beside a device-to-device copy, and prints one JSON
// object: for each shape and decay the milliseconds of each part and of forward and backward, the
// bytes moved, and the share of the copy's bandwidth, all measured in the same run. The gradient of
// learned theta is timed apart and is in no sum.
//
//   linear_attention_cuda [segments]
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/cuda/linear_attention.h"
#include "kernels/decay_slopes.h"
#include "kernels/lrpe.h"

namespace lasp::kernels {
namespace {

void Expect(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorName(error));
    std::exit(1);
  }
}

template <typename T>
T* Allocate(int64_t count) {
  T* memory = nullptr;
  Expect(cudaMalloc(reinterpret_cast<void**>(&memory), static_cast<size_t>(count) * sizeof(T)),
         "cudaMalloc");
  return memory;
}

__global__ void FillKernel(int64_t count, uint64_t seed, cuda::Bf16* values) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    uint64_t x = (static_cast<uint64_t>(i) + seed) * 0x9e3779b97f4a7c15ull;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 32;
    values[i] = static_cast<cuda::Bf16>(static_cast<float>(x & 0xffff) / 32768.0F - 1.0F);
  }
}

__global__ void CopyKernel(int64_t count, const uint4* from, uint4* to) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    to[i] = from[i];
  }
}

// Median milliseconds of one call of `body(i)`, i counting calls; many calls in one graph, so that
// the host's launches are not measured.
double Milliseconds(const std::function<void(int, cudaStream_t)>& body, int calls) {
  cudaStream_t stream = nullptr;
  Expect(cudaStreamCreate(&stream), "cudaStreamCreate");
  body(0, stream);
  Expect(cudaStreamSynchronize(stream), "first call");
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  Expect(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
  for (int i = 0; i < calls; ++i) {
    body(i, stream);
  }
  Expect(cudaStreamEndCapture(stream, &graph), "capture");
  Expect(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
  cudaEvent_t start = nullptr;
  cudaEvent_t stop = nullptr;
  Expect(cudaEventCreate(&start), "event");
  Expect(cudaEventCreate(&stop), "event");
  std::vector<float> times;
  float total = 0;
  // The first 40 ms warm the GPU up; then at least 20 launches count.
  constexpr float kWarmUp = 40;
  while (total < kWarmUp || times.size() < 20) {
    Expect(cudaEventRecord(start, stream), "record");
    Expect(cudaGraphLaunch(executable, stream), "launch");
    Expect(cudaEventRecord(stop, stream), "record");
    Expect(cudaEventSynchronize(stop), "synchronize");
    float elapsed = 0;
    Expect(cudaEventElapsedTime(&elapsed, start, stop), "elapsed");
    if (total >= kWarmUp) {
      times.push_back(elapsed);
    }
    total += elapsed;
  }
  Expect(cudaGraphExecDestroy(executable), "destroy");
  Expect(cudaGraphDestroy(graph), "destroy");
  Expect(cudaStreamDestroy(stream), "destroy");
  std::sort(times.begin(), times.end());
  return static_cast<double>(times[times.size() / 2]) / calls;
}

double CopyTerabytesPerSecond() {
  const int64_t bytes = int64_t{4} << 30;
  auto* from = Allocate<cuda::Bf16>(bytes / 2);
  auto* to = Allocate<cuda::Bf16>(bytes / 2);
  FillKernel<<<1024, 256>>>(bytes / 2, 1, from);
  const int64_t count = bytes / 16;
  const double ms = Milliseconds(
      [&](int, cudaStream_t stream) {
        CopyKernel<<<static_cast<unsigned>(count / 1024), 1024, 0, stream>>>(
            count, reinterpret_cast<const uint4*>(from), reinterpret_cast<uint4*>(to));
      },
      2);
  Expect(cudaFree(from), "free");
  Expect(cudaFree(to), "free");
  return 2.0 * static_cast<double>(bytes) / ms * 1e-9;
}

struct Sizes {
  int64_t batch;
  int64_t tokens;
  int64_t heads;
  int64_t size;
  bool lrpe;
};

// Buffers of one layer, laid out as in the model.
class Set {
 public:
  Set(const Sizes& sizes, const cuda::LinearAttentionProblem& problem, uint64_t seed)
      : sizes_(sizes), problem_(problem), hidden_(sizes.heads * sizes.size) {
    const int64_t rows = sizes.batch * sizes.tokens;
    qk_ = Filled(rows * 2 * hidden_, seed);
    packed_ = Filled(rows * 4 * hidden_, seed + 1);
    output_gradient_ = Filled(rows * hidden_, seed + 2);
    output_ = Allocate<cuda::Bf16>(rows * hidden_);
    gradients_ = Allocate<cuda::Bf16>(rows * 4 * hidden_);
    const int64_t elements = cuda::SegmentStateElements(problem);
    states_ = Allocate<float>(elements);
    starts_ = Allocate<float>(elements);
    state_gradients_ = Allocate<float>(elements);
    theta_workspace_ = Allocate<float>(cuda::ThetaGradientWorkspaceElements(problem));
    theta_gradient_ = Allocate<float>(hidden_);
    Expect(cudaMemset(theta_gradient_, 0, static_cast<size_t>(hidden_) * sizeof(float)), "fill");
  }

  ~Set() {
    for (void* memory :
         {static_cast<void*>(qk_), static_cast<void*>(packed_),
          static_cast<void*>(output_gradient_), static_cast<void*>(output_),
          static_cast<void*>(gradients_), static_cast<void*>(states_), static_cast<void*>(starts_),
          static_cast<void*>(state_gradients_), static_cast<void*>(theta_workspace_),
          static_cast<void*>(theta_gradient_)}) {
      Expect(cudaFree(memory), "free");
    }
  }

  Set(const Set&) = delete;
  Set& operator=(const Set&) = delete;

  void LocalState(cudaStream_t stream) const {
    Expect(cuda::LocalState({.problem = problem_,
                             .k = View(qk_, 1, 2),
                             .v = View(packed_, 2, 4),
                             .segment_states = states_,
                             .state = nullptr},
                            stream),
           "LocalState");
  }

  void Output(cudaStream_t stream) const {
    Expect(cuda::Output({.problem = problem_,
                         .q = View(qk_, 0, 2),
                         .k = View(qk_, 1, 2),
                         .v = View(packed_, 2, 4),
                         .segment_states = states_,
                         .state_in = nullptr,
                         .output = View(output_, 0, 1),
                         .segment_starts = starts_,
                         .state_out = nullptr},
                        stream),
           "Output");
  }

  void LocalStateGradient(cudaStream_t stream) const {
    Expect(cuda::LocalStateGradient({.problem = problem_,
                                     .q = View(qk_, 0, 2),
                                     .output_gradient = View(output_gradient_, 0, 1),
                                     .segment_state_gradients = state_gradients_,
                                     .state_gradient = nullptr},
                                    stream),
           "LocalStateGradient");
  }

  void QueryGradient(cudaStream_t stream) const {
    Expect(cuda::QueryGradient({.problem = problem_,
                                .k = View(qk_, 1, 2),
                                .v = View(packed_, 2, 4),
                                .output_gradient = View(output_gradient_, 0, 1),
                                .segment_starts = starts_,
                                .q_gradient = View(gradients_, 0, 4)},
                               stream),
           "QueryGradient");
  }

  void KeyValueGradient(cudaStream_t stream) const {
    Expect(cuda::KeyValueGradient({.problem = problem_,
                                   .q = View(qk_, 0, 2),
                                   .k = View(qk_, 1, 2),
                                   .v = View(packed_, 2, 4),
                                   .output_gradient = View(output_gradient_, 0, 1),
                                   .segment_state_gradients = state_gradients_,
                                   .state_gradient_in = nullptr,
                                   .k_gradient = View(gradients_, 1, 4),
                                   .v_gradient = View(gradients_, 2, 4)},
                                  stream),
           "KeyValueGradient");
  }

  // Of learned theta.
  void ThetaGradient(cudaStream_t stream) const {
    Expect(cuda::ThetaGradient({.problem = problem_,
                                .q = View(qk_, 0, 2),
                                .k = View(qk_, 1, 2),
                                .v = View(packed_, 2, 4),
                                .output_gradient = View(output_gradient_, 0, 1),
                                .segment_starts = starts_,
                                .segment_state_gradients = state_gradients_,
                                .state_gradient_in = nullptr,
                                .workspace = theta_workspace_,
                                .theta_gradient = theta_gradient_},
                               stream),
           "ThetaGradient");
  }

  void Forward(cudaStream_t stream) const {
    LocalState(stream);
    Output(stream);
  }

  void Both(cudaStream_t stream) const {
    Forward(stream);
    LocalStateGradient(stream);
    QueryGradient(stream);
    KeyValueGradient(stream);
  }

 private:
  static cuda::Bf16* Filled(int64_t count, uint64_t seed) {
    auto* values = Allocate<cuda::Bf16>(count);
    FillKernel<<<1024, 256>>>(count, seed * 1000003, values);
    Expect(cudaGetLastError(), "fill");
    return values;
  }

  HeadsView<cuda::Bf16> View(cuda::Bf16* buffer, int64_t part, int64_t parts) const {
    return {buffer + part * hidden_, sizes_.tokens * parts * hidden_, parts * hidden_, sizes_.size};
  }

  Sizes sizes_;
  cuda::LinearAttentionProblem problem_;
  int64_t hidden_;
  cuda::Bf16* qk_;
  cuda::Bf16* packed_;
  cuda::Bf16* output_gradient_;
  cuda::Bf16* output_;
  cuda::Bf16* gradients_;
  float* states_;
  float* starts_;
  float* state_gradients_;
  float* theta_workspace_;
  float* theta_gradient_;
};

// Bytes of q, k, v and so on (one each) that the first pass over two of them must read: the tokens
// that count of every segment but one.
double FirstPassBytes(const Sizes& sizes, const std::vector<double>& slopes, int64_t segments) {
  if (segments == 1) {
    return 0;
  }
  const double length =
      std::ceil(static_cast<double>(sizes.tokens) / 64 / static_cast<double>(segments)) * 64;
  double tokens = 0;
  for (const double slope : slopes) {
    tokens += slope > 0 ? std::min(length, 40 / slope + 64) : length;
  }
  return tokens * static_cast<double>((segments - 1) * sizes.batch * sizes.size * 2 * 2);
}

void Measure(const Sizes& sizes, int64_t layer, int segments, double copy, bool first) {
  std::vector<double> slopes(static_cast<size_t>(sizes.heads));
  DecaySlopes(layer, 16, sizes.heads, slopes.data());
  auto* device_slopes = Allocate<double>(sizes.heads);
  Expect(cudaMemcpy(device_slopes, slopes.data(), slopes.size() * sizeof(double),
                    cudaMemcpyHostToDevice),
         "copy");
  std::vector<double> theta(static_cast<size_t>(sizes.heads * sizes.size));
  LrpeTheta(sizes.heads, sizes.size, theta.data());
  auto* device_theta = Allocate<double>(sizes.heads * sizes.size);
  Expect(
      cudaMemcpy(device_theta, theta.data(), theta.size() * sizeof(double), cudaMemcpyHostToDevice),
      "copy");
  cuda::LinearAttentionProblem problem;
  problem.shape = {.batch = sizes.batch,
                   .tokens = sizes.tokens,
                   .heads = sizes.heads,
                   .key_size = sizes.size,
                   .value_size = sizes.size,
                   .slopes = device_slopes,
                   .theta = sizes.lrpe ? device_theta : nullptr};
  problem.segments = segments;
  const int64_t count = cuda::SegmentCount(problem);
  const double one = static_cast<double>(sizes.batch * sizes.tokens * sizes.heads * sizes.size) * 2;
  // Inputs rotate, so that no call finds its own in the cache.
  const int sets = one < 100e6 ? 4 : 1;
  std::vector<std::unique_ptr<Set>> buffers;
  for (int i = 0; i < sets; ++i) {
    buffers.push_back(std::make_unique<Set>(sizes, problem, 10 + 3 * static_cast<uint64_t>(i)));
  }
  Expect(cudaDeviceSynchronize(), "fill");
  for (const auto& set : buffers) {
    set->Both(nullptr);
  }
  Expect(cudaDeviceSynchronize(), "first run");
  const int calls = one < 100e6 ? 16 : 4;
  using Part = void (Set::*)(cudaStream_t) const;
  const auto time = [&](Part part) {
    return Milliseconds(
        [&](int i, cudaStream_t stream) {
          (buffers[static_cast<size_t>(i % sets)].get()->*part)(stream);
        },
        calls);
  };
  const double forward = time(&Set::Forward);
  const double both = time(&Set::Both);
  const double again = time(&Set::Both);
  const double parts[] = {
      time(&Set::LocalState),         time(&Set::Output),
      time(&Set::LocalStateGradient), time(&Set::QueryGradient),
      time(&Set::KeyValueGradient),   sizes.lrpe ? time(&Set::ThetaGradient) : 0};
  const double pass = FirstPassBytes(sizes, slopes, count);
  const double forward_bytes = 4 * one + pass;
  const double both_bytes = 14 * one + 2 * pass;
  std::printf(
      "%s\n    {\"batch\": %lld, \"tokens\": %lld, \"heads\": %lld, \"size\": %lld, "
      "\"lrpe\": %s, \"layer\": %lld, \"segments\": %lld,\n     \"forward_ms\": %.4f, "
      "\"forward_backward_ms\": %.4f, \"forward_backward_again_ms\": %.4f,\n     "
      "\"local_state_ms\": %.4f, \"output_ms\": %.4f, \"local_state_gradient_ms\": %.4f, "
      "\"query_gradient_ms\": %.4f, \"key_value_gradient_ms\": %.4f, "
      "\"theta_gradient_ms\": %.4f,\n     "
      "\"forward_gigabytes\": %.4f, \"forward_backward_gigabytes\": %.4f, "
      "\"forward_floor_ms\": %.4f, \"forward_backward_floor_ms\": %.4f,\n     "
      "\"forward_share_of_copy\": %.3f, \"forward_backward_share_of_copy\": %.3f}",
      first ? "" : ",", static_cast<long long>(sizes.batch), static_cast<long long>(sizes.tokens),
      static_cast<long long>(sizes.heads), static_cast<long long>(sizes.size),
      sizes.lrpe ? "true" : "false", static_cast<long long>(layer), static_cast<long long>(count),
      forward, both, again, parts[0], parts[1], parts[2], parts[3], parts[4], parts[5],
      forward_bytes * 1e-9, both_bytes * 1e-9, forward_bytes / copy * 1e-9,
      both_bytes / copy * 1e-9, forward_bytes / copy * 1e-9 / forward,
      both_bytes / copy * 1e-9 / both);
  std::fflush(stdout);
  Expect(cudaFree(device_slopes), "free");
  Expect(cudaFree(device_theta), "free");
}

int Main(int segments) {
  cudaDeviceProp properties;
  Expect(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  int driver = 0;
  int runtime = 0;
  Expect(cudaDriverGetVersion(&driver), "driver");
  Expect(cudaRuntimeGetVersion(&runtime), "runtime");
  const double copy = CopyTerabytesPerSecond();
  std::printf(
      "{\"gpu\": \"%s\", \"driver\": %d, \"runtime\": %d, \"copy_terabytes_per_second\": %.3f,\n"
      " \"results\": [",
      properties.name, driver, runtime, copy);
  const Sizes shapes[] = {{1, 131072, 16, 128, false}, {1, 131072, 16, 128, true},
                          {1, 32768, 16, 128, false},  {1, 32768, 16, 128, true},
                          {1, 8192, 16, 128, false},   {1, 8192, 16, 128, true},
                          {8, 2048, 16, 128, false},   {8, 2048, 16, 128, true},
                          {1, 32768, 16, 64, false},   {1, 32768, 16, 96, false}};
  bool first = true;
  for (const Sizes& sizes : shapes) {
    for (const int64_t layer : {0, 8, 15}) {
      Measure(sizes, layer, segments, copy, first);
      first = false;
    }
  }
  std::printf("\n]}\n");
  return 0;
}

}  // namespace
}  // namespace lasp::kernels

int main(int argc, char** argv) { return lasp::kernels::Main(argc > 1 ? std::atoi(argv[1]) : 0); }
