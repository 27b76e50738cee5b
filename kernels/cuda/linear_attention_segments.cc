#include "kernels/cuda/linear_attention_segments.h"

#include <algorithm>

namespace lasp::kernels::cuda {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t Multiprocessors(const LinearAttentionProblem& problem) {
  if (problem.multiprocessors > 0) {
    return problem.multiprocessors;
  }
  int device = 0;
  int count = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
    return 132;
  }
  return count;
}

// The number of segments that takes the least time, in chunks: rounds of thread blocks times what
// each does, half as much again where a first pass must find the segments' states.
int64_t BestSegmentCount(int64_t chunks, int64_t pairs, int64_t multiprocessors) {
  constexpr double kStart = 6;  // what a thread block's start and end cost, in chunks
  const int64_t most = std::min<int64_t>(chunks, std::max<int64_t>(1, multiprocessors / pairs * 4));
  int64_t best = 1;
  double best_cost = 0;
  for (int64_t count = 1; count <= most; ++count) {
    const auto rounds = static_cast<double>(CeilDiv(pairs * count, multiprocessors));
    const double cost =
        rounds * (static_cast<double>(CeilDiv(chunks, count)) + kStart) * (count > 1 ? 1.5 : 1.0);
    if (count == 1 || cost < best_cost) {
      best = count;
      best_cost = cost;
    }
  }
  return best;
}

constexpr int64_t kMostBlocks = 65535;  // in a grid's second and third dimension

bool SizeIsTaken(int64_t size) { return size >= 8 && size <= 128 && size % 8 == 0; }

}  // namespace

cudaError_t PlanSegments(const LinearAttentionProblem& problem, Segments* segments) {
  const LinearAttentionShape& shape = problem.shape;
  if (shape.batch < 1 || shape.tokens < 1 || shape.heads < 1 || !SizeIsTaken(shape.key_size) ||
      !SizeIsTaken(shape.value_size) || shape.batch > kMostBlocks || shape.heads > kMostBlocks ||
      shape.batch * shape.heads > kMostBlocks || shape.tokens > INT32_MAX - kChunk) {
    return cudaErrorInvalidValue;
  }
  const int64_t chunks = BlockCount(shape);
  const int64_t count = problem.segments > 0 ? std::min<int64_t>(problem.segments, chunks)
                                             : BestSegmentCount(chunks, shape.batch * shape.heads,
                                                                Multiprocessors(problem));
  *segments = {.tokens = shape.tokens,
               .heads = static_cast<int>(shape.heads),
               .batch = static_cast<int>(shape.batch),
               .chunks = static_cast<int>(chunks),
               .segment_chunks = static_cast<int>(CeilDiv(chunks, count)),
               .count = 0,
               .slopes = shape.slopes,
               .marks = problem.document_marks};
  segments->count = static_cast<int>(CeilDiv(chunks, segments->segment_chunks));
  return cudaSuccess;
}

cudaError_t PlanSweep(const LinearAttentionProblem& problem, const float* states,
                      Segments* segments, const float** segment_states) {
  if (const cudaError_t error = PlanSegments(problem, segments); error != cudaSuccess) {
    return error;
  }
  const bool split = segments->count > 1;
  *segment_states = split ? states : nullptr;
  return split && states == nullptr ? cudaErrorInvalidValue : cudaSuccess;
}

int64_t SegmentCount(const LinearAttentionProblem& problem) {
  Segments segments;
  return PlanSegments(problem, &segments) == cudaSuccess ? segments.count : 0;
}

int64_t SegmentStateElements(const LinearAttentionProblem& problem) {
  return StateElements(problem.shape) * SegmentCount(problem);
}

}  // namespace lasp::kernels::cuda
