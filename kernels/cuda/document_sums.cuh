// Sums over the tokens of each head, of rows of bf16 perhaps times a number, none of which passes a
// document's start: whole ones, and running ones that hand each row's sum to whoever uses it. A
// sequence is cut into segments, a thread block each; running sums begin at the sums of the
// segments before. Nothing adds atomically.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/bfloat16.h"
#include "kernels/cuda/pack.cuh"
#include "kernels/linear_attention.h"

namespace lasp::kernels::cuda::document_sums {

// One a channel, as sizes go up to so many.
inline constexpr int kThreads = 128;
inline constexpr int kWarps = kThreads / 32;
// Running sums that lie in shared memory at a time.
inline constexpr int kTile = 32;
// Each block adds up the segments before its own: few enough that nobody notices, and with a head
// or two enough to fill a GPU.
inline constexpr int64_t kMaxSegments = 64;

// Channels of a lane, 8 bytes of bf16.
inline constexpr int kLaneChannels = 4;

// Whole words of document marks.
inline int64_t SegmentTokens(const LinearAttentionShape& shape) {
  const int64_t blocks = BlockCount(shape);
  return (blocks + kMaxSegments - 1) / kMaxSegments * kLinearAttentionBlock;
}

inline int64_t SegmentsOf(const LinearAttentionShape& shape) {
  const int64_t tokens = SegmentTokens(shape);
  return tokens == 0 ? 0 : (shape.tokens + tokens - 1) / tokens;
}

struct LaneValues {
  float values[kLaneChannels];

  __device__ static LaneValues Load(const Bf16* from) {
    const uint2 words = *reinterpret_cast<const uint2*>(from);
    return {{__uint_as_float(words.x << 16), __uint_as_float(words.x & 0xffff0000U),
             __uint_as_float(words.y << 16), __uint_as_float(words.y & 0xffff0000U)}};
  }

  __device__ void Store(Bf16* to) const {
    const __nv_bfloat162 low = __floats2bfloat162_rn(values[0], values[1]);
    const __nv_bfloat162 high = __floats2bfloat162_rn(values[2], values[3]);
    *reinterpret_cast<uint2*>(to) = {*reinterpret_cast<const uint32_t*>(&low),
                                     *reinterpret_cast<const uint32_t*>(&high)};
  }
};

// What a sum runs over: rows of one head, each times a number where there are some.
struct Summand {
  HeadsView<const Bf16> rows;
  const float* factors = nullptr;  // [batch, tokens, heads]
};

struct Place {
  int64_t batch;
  int64_t head;
  int64_t pair;
};

inline __device__ Place PlaceOf(const LinearAttentionShape& shape) {
  const int64_t pair = blockIdx.y;
  return {pair / shape.heads, pair % shape.heads, pair};
}

template <typename T>
__device__ T* RowOf(const HeadsView<T>& view, const Place& place, int64_t token) {
  return view.data + place.batch * view.batch_stride + token * view.token_stride +
         place.head * view.head_stride;
}

inline __device__ int64_t NumberOf(const LinearAttentionShape& shape, const Place& place,
                                   int64_t token) {
  return (place.batch * shape.tokens + token) * shape.heads + place.head;
}

inline __device__ float FactorOf(const LinearAttentionShape& shape, const Summand& summand,
                                 const Place& place, int64_t token) {
  return summand.factors == nullptr ? 1.0F : summand.factors[NumberOf(shape, place, token)];
}

inline __device__ bool StartsAt(const LinearAttentionShape& shape, const Place& place,
                                int64_t token) {
  if (shape.document_marks == nullptr) {
    return false;
  }
  const int64_t words = (shape.tokens + kLinearAttentionBlock - 1) / kLinearAttentionBlock;
  const uint64_t word =
      __ldg(shape.document_marks + place.batch * words + token / kLinearAttentionBlock);
  return (word >> (token % kLinearAttentionBlock) & 1) != 0;
}

// The part of [begin, end) that a sum over it is of: from the last document's start on, or
// backwards up to the first one. `begin` is a word's first token. By all threads.
template <bool kBackwards>
__device__ void CutAtDocuments(const LinearAttentionShape& shape, const Place& place,
                               int64_t& begin, int64_t& end) {
  if (shape.document_marks == nullptr) {
    return;
  }
  __shared__ int border;
  if (threadIdx.x == 0) {
    border = kBackwards ? static_cast<int>(end - begin) : 0;
  }
  __syncthreads();
  const int64_t words = (shape.tokens + kLinearAttentionBlock - 1) / kLinearAttentionBlock;
  const int64_t last = (end + kLinearAttentionBlock - 1) / kLinearAttentionBlock;
  for (int64_t word = begin / kLinearAttentionBlock + threadIdx.x; word < last; word += kThreads) {
    const auto marks =
        static_cast<long long>(__ldg(shape.document_marks + place.batch * words + word));
    const int before = static_cast<int>(word * kLinearAttentionBlock - begin);
    if (marks != 0 && kBackwards) {
      atomicMin(&border, before + __ffsll(marks) - 1);
    } else if (marks != 0) {
      atomicMax(&border, before + 63 - __clzll(marks));
    }
  }
  __syncthreads();
  (kBackwards ? end : begin) = begin + border;
}

// Whether a document starts in each segment. By all threads; a barrier must follow.
inline __device__ void MarkSegments(const LinearAttentionShape& shape, const Place& place,
                                    int64_t segment_tokens, int segments,
                                    bool (&marked)[kMaxSegments]) {
  for (int segment = static_cast<int>(threadIdx.x); segment < segments; segment += kThreads) {
    marked[segment] = false;
  }
  if (shape.document_marks == nullptr) {
    return;
  }
  __syncthreads();
  const int64_t words = (shape.tokens + kLinearAttentionBlock - 1) / kLinearAttentionBlock;
  for (int64_t word = threadIdx.x; word < words; word += kThreads) {
    if (__ldg(shape.document_marks + place.batch * words + word) != 0) {
      marked[word * kLinearAttentionBlock / segment_tokens] = true;
    }
  }
}

// The sum over each segment into sums [pairs, segments, key_size]: of what of it is seen behind it,
// or backwards before it.
template <bool kBackwards>
__global__ void __launch_bounds__(kThreads)
    SegmentSumsKernel(LinearAttentionShape shape, Summand summand, int64_t segment_tokens,
                      float* sums) {
  __shared__ float parts[kWarps][kThreads];
  const Place place = PlaceOf(shape);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int channel = static_cast<int>(threadIdx.x) % 32 * kLaneChannels;
  int64_t begin = blockIdx.x * segment_tokens;
  int64_t end = min(begin + segment_tokens, shape.tokens);
  CutAtDocuments<kBackwards>(shape, place, begin, end);
  float sum[kLaneChannels] = {};
  if (channel < shape.key_size) {
#pragma unroll 4
    for (int64_t token = begin + warp; token < end; token += kWarps) {
      const LaneValues row = LaneValues::Load(RowOf(summand.rows, place, token) + channel);
      const float factor = FactorOf(shape, summand, place, token);
#pragma unroll
      for (int i = 0; i < kLaneChannels; ++i) {
        sum[i] = fmaf(factor, row.values[i], sum[i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kLaneChannels; ++i) {
    parts[warp][channel + i] = sum[i];
  }
  __syncthreads();
  if (threadIdx.x < shape.key_size) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      total += parts[w][threadIdx.x];
    }
    sums[(place.pair * gridDim.x + blockIdx.x) * shape.key_size + threadIdx.x] = total;
  }
}

// What of segments [first, end) is seen behind them, or backwards before them, of one channel of
// `sums` [segments, key_size]. `blocked`: a document starts in them.
template <bool kBackwards>
__device__ float SumOfSegments(const float* sums, int64_t key_size, int first, int end,
                               const bool (&marked)[kMaxSegments], bool& blocked) {
  float sum = 0;
  blocked = false;
  for (int i = 0; i < end - first && !blocked; ++i) {
    const int segment = kBackwards ? first + i : end - 1 - i;
    sum += sums[segment * key_size];
    blocked = marked[segment];
  }
  return sum;
}

// The sum of all segments.
template <bool kBackwards>
__global__ void __launch_bounds__(kThreads)
    TotalKernel(LinearAttentionShape shape, int64_t segment_tokens, int segments, const float* sums,
                float* total) {
  __shared__ bool marked[kMaxSegments];
  const Place place = PlaceOf(shape);
  MarkSegments(shape, place, segment_tokens, segments, marked);
  __syncthreads();
  if (threadIdx.x >= shape.key_size) {
    return;
  }
  bool blocked = false;
  total[place.pair * shape.key_size + threadIdx.x] =
      SumOfSegments<kBackwards>(sums + place.pair * segments * shape.key_size + threadIdx.x,
                                shape.key_size, 0, segments, marked, blocked);
}

// What every row of a segment is done to with the sum up to it (of it and the rows before it, or
// with kBackwards behind it). A Consumer has operator()(shape, place, token, sum), called by a
// whole warp with the sum's kLaneChannels channels of each lane.
template <bool kBackwards, typename Consumer>
__global__ void __launch_bounds__(kThreads)
    RunningSumKernel(LinearAttentionShape shape, Summand summand, int64_t segment_tokens,
                     const float* start, const float* sums, Consumer consumer) {
  // Each row's channels follow each other, as a lane takes four by one access.
  __shared__ __align__(16) float running[kTile][kThreads];
  __shared__ bool marked[kMaxSegments];
  const Place place = PlaceOf(shape);
  MarkSegments(shape, place, segment_tokens, static_cast<int>(gridDim.x), marked);
  __syncthreads();
  const int channel = static_cast<int>(threadIdx.x);
  const int warp = channel / 32;
  const int lane_channel = channel % 32 * kLaneChannels;
  const bool sums_here = summand.rows.data != nullptr && channel < shape.key_size;
  const int64_t begin = blockIdx.x * segment_tokens;
  const int64_t end = min(begin + segment_tokens, shape.tokens);
  float sum = 0;
  if (channel < shape.key_size) {
    const int first = kBackwards ? static_cast<int>(blockIdx.x) + 1 : 0;
    const int last = static_cast<int>(kBackwards ? gridDim.x : blockIdx.x);
    bool blocked = false;
    if (sums_here) {
      sum = SumOfSegments<kBackwards>(sums + place.pair * gridDim.x * shape.key_size + channel,
                                      shape.key_size, first, last, marked, blocked);
    } else {
      for (int segment = first; segment < last; ++segment) {
        blocked = blocked || marked[segment];
      }
    }
    if (start != nullptr && !blocked) {
      sum += start[place.pair * shape.key_size + channel];
    }
  }
  const auto token_at = [&](int64_t step) { return kBackwards ? end - 1 - step : begin + step; };
  for (int64_t step = 0; step < end - begin; step += kTile) {
    const int count = static_cast<int>(min(static_cast<int64_t>(kTile), end - begin - step));
#pragma unroll 8
    for (int t = 0; t < kTile; ++t) {
      const int64_t token = token_at(step + t);
      const bool starts = t < count && StartsAt(shape, place, token);
      if (starts && !kBackwards) {
        sum = 0;
      }
      if (sums_here && t < count) {
        sum = fmaf(FactorOf(shape, summand, place, token),
                   __bfloat162float(RowOf(summand.rows, place, token)[channel]), sum);
      }
      running[t][channel] = sum;
      if (starts && kBackwards) {
        sum = 0;
      }
    }
    __syncthreads();
    for (int t = warp; t < count; t += kWarps) {
      const float4 four = *reinterpret_cast<const float4*>(&running[t][lane_channel]);
      consumer(shape, place, token_at(step + t), lane_channel,
               LaneValues{{four.x, four.y, four.z, four.w}});
    }
    __syncthreads();
  }
}

// Whether the kernels take the sizes, and there is something to do.
inline bool Taken(const LinearAttentionShape& shape) {
  const auto size = [](int64_t one) { return one > 0 && one <= kThreads && one % 8 == 0; };
  return size(shape.key_size) && size(shape.value_size) && shape.batch >= 0 && shape.heads > 0 &&
         shape.batch * shape.heads <= 65535 && shape.tokens >= 0;
}

template <typename T>
bool Taken(const HeadsView<T>& view) {
  return Aligned16(view.data, view.token_stride) && view.batch_stride % 8 == 0 &&
         view.head_stride % 8 == 0;
}

inline dim3 GridOf(const LinearAttentionShape& shape) {
  return {static_cast<unsigned>(SegmentsOf(shape)),
          static_cast<unsigned>(shape.batch * shape.heads)};
}

inline bool Empty(const LinearAttentionShape& shape) {
  return shape.batch == 0 || shape.tokens == 0;
}

template <bool kBackwards>
void SegmentSums(const LinearAttentionShape& shape, const Summand& summand, float* workspace,
                 cudaStream_t stream) {
  SegmentSumsKernel<kBackwards>
      <<<GridOf(shape), kThreads, 0, stream>>>(shape, summand, SegmentTokens(shape), workspace);
}

template <bool kBackwards>
cudaError_t Total(const LinearAttentionShape& shape, const Summand& summand, float* workspace,
                  float* total, cudaStream_t stream) {
  if (!Taken(shape) || !Taken(summand.rows)) {
    return cudaErrorInvalidValue;
  }
  if (shape.batch == 0) {
    return cudaSuccess;
  }
  if (shape.tokens > 0) {
    SegmentSums<kBackwards>(shape, summand, workspace, stream);
  }
  const dim3 grid(1, static_cast<unsigned>(shape.batch * shape.heads));
  TotalKernel<kBackwards><<<grid, kThreads, 0, stream>>>(
      shape, SegmentTokens(shape), static_cast<int>(SegmentsOf(shape)), workspace, total);
  return cudaGetLastError();
}

template <bool kBackwards, typename Consumer>
cudaError_t RunningSum(const LinearAttentionShape& shape, const Summand& summand,
                       const float* start, float* workspace, const Consumer& consumer,
                       cudaStream_t stream) {
  if (!Taken(shape) || !Taken(summand.rows)) {
    return cudaErrorInvalidValue;
  }
  if (Empty(shape)) {
    return cudaSuccess;
  }
  if (summand.rows.data != nullptr) {
    SegmentSums<kBackwards>(shape, summand, workspace, stream);
  }
  RunningSumKernel<kBackwards><<<GridOf(shape), kThreads, 0, stream>>>(
      shape, summand, SegmentTokens(shape), start, workspace, consumer);
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda::document_sums
