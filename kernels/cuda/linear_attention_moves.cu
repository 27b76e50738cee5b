// States moved over tokens: from segment to segment, and from rank to rank.
#include "kernels/cuda/linear_attention_marks.cuh"
#include "kernels/cuda/linear_attention_moves.h"
#include "kernels/cuda/linear_attention_rotary.cuh"

namespace lasp::kernels::cuda {
namespace {

constexpr int kScanThreads = 256;

__device__ float4 MultiplyAdd(float4 x, float factor, float4 addend) {
  return {fmaf(x.x, factor, addend.x), fmaf(x.y, factor, addend.y), fmaf(x.z, factor, addend.z),
          fmaf(x.w, factor, addend.w)};
}

// Four neighbours in a row of a state; with LRPE also those of the same row's sine half.
template <bool kRotary>
struct Elements {
  static constexpr int kParts = kRotary ? 2 : 1;

  float4 parts[kParts];

  static __device__ Elements Zero() {
    Elements zero;
    for (int i = 0; i < kParts; ++i) {
      zero.parts[i] = make_float4(0, 0, 0, 0);
    }
    return zero;
  }

  // `half_size` is the distance of the halves.
  static __device__ Elements Load(const float* from, int64_t half_size) {
    Elements elements;
    for (int i = 0; i < kParts; ++i) {
      elements.parts[i] = *reinterpret_cast<const float4*>(from + i * half_size);
    }
    return elements;
  }

  __device__ void Store(float* to, int64_t half_size) const {
    for (int i = 0; i < kParts; ++i) {
      *reinterpret_cast<float4*>(to + i * half_size) = parts[i];
    }
  }

  // factor * (this, its origin moved ahead by the angle) + addend
  __device__ Elements Move(Angle angle, float factor, const Elements& addend) const {
    if constexpr (kRotary) {
      const float cosine = factor * angle.cosine;
      const float sine = factor * angle.sine;
      return {MultiplyAdd(parts[1], sine, MultiplyAdd(parts[0], cosine, addend.parts[0])),
              MultiplyAdd(parts[0], -sine, MultiplyAdd(parts[1], cosine, addend.parts[1]))};
    } else {
      return {MultiplyAdd(parts[0], factor, addend.parts[0])};
    }
  }
};

// Which elements of a state a thread has: [rows, width] of a half, all of a state without LRPE.
struct ElementPlace {
  int64_t pair;
  int head;
  int batch;
  int64_t element;
  bool active;

  __device__ ElementPlace(const Segments& segments, int64_t half_size)
      : pair(blockIdx.y),
        head(static_cast<int>(pair % segments.heads)),
        batch(static_cast<int>(pair / segments.heads)),
        element(4 * (static_cast<int64_t>(blockIdx.x) * kScanThreads + threadIdx.x)),
        active(element < half_size) {}
};

struct MoveParameters {
  Segments segments;
  const double* theta;  // [heads, key_size] or null
  int64_t half_size;    // elements of a half of a state, of all of it without LRPE
  int key_size;
  int value_size;

  // The angle by which an origin moves, ahead or back, over some tokens.
  template <bool kGradient>
  __device__ Angle AngleOver(const ElementPlace& at, int64_t tokens) const {
    const double row_theta =
        theta[static_cast<int64_t>(at.head) * key_size + at.element / value_size];
    return AngleOf(row_theta, kGradient ? -tokens : tokens);
  }
};

// Over the segments in the order of the recurrence: each one's local state is replaced by what the
// segments before (after) it leave; `total`, if wanted, gets the slice's.
template <bool kGradient, bool kRotary>
__global__ void __launch_bounds__(kScanThreads)
    ScanKernel(const MoveParameters move, float* states, float* total) {
  using State = Elements<kRotary>;
  const Segments& segments = move.segments;
  const ElementPlace at(segments, move.half_size);
  const double slope = segments.slopes[at.head];
  const int count = segments.count;
  const int64_t elements = move.half_size * State::kParts;
  const int64_t whole = static_cast<int64_t>(segments.segment_chunks) * kChunk;
  const int64_t rest =
      segments.tokens - static_cast<int64_t>(segments.FirstChunk(count - 1)) * kChunk;
  Angle whole_angle = {1, 0};
  Angle rest_angle = {1, 0};
  if constexpr (kRotary) {
    if (at.active) {
      whole_angle = move.AngleOver<kGradient>(at, whole);
      rest_angle = move.AngleOver<kGradient>(at, rest);
    }
  }
  const float whole_factor = FarDecay(slope, whole);
  const float rest_factor = FarDecay(slope, rest);
  const auto segment_of = [&](int i) { return kGradient ? count - 1 - i : i; };
  float* const own = states + at.pair * count * elements + at.element;
  const auto local_of = [&](int i) {
    // The last in order adds only to the slice's own state.
    const bool wanted = at.active && (i < count - 1 || (i < count && total != nullptr));
    return wanted ? State::Load(own + segment_of(i) * elements, move.half_size) : State::Zero();
  };
  // A few segments' loads are in flight, ahead of the stores.
  constexpr int kAhead = 4;
  State ahead[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    ahead[i] = local_of(i);
  }
  State running = State::Zero();
  for (int base = 0; base < count; base += kAhead) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = base + j;
      if (i >= count) {
        break;
      }
      const int segment = segment_of(i);
      const bool starts = DocumentStartsIn(segments, at.batch, segments.FirstChunk(segment),
                                           segments.EndChunk(segment));
      const State local = ahead[j];
      ahead[j] = local_of(i + kAhead);
      if (at.active) {
        running.Store(own + segment * elements, move.half_size);
      }
      const bool last = segment == count - 1;
      running = running.Move(last ? rest_angle : whole_angle,
                             starts ? 0.0F : (last ? rest_factor : whole_factor), local);
    }
  }
  if (at.active && total != nullptr) {
    running.Store(total + at.pair * elements + at.element, move.half_size);
  }
}

template <bool kGradient, bool kRotary>
__global__ void __launch_bounds__(kScanThreads)
    HopKernel(const MoveParameters move, const float* in, const float* local, float* out) {
  using State = Elements<kRotary>;
  const Segments& segments = move.segments;
  const ElementPlace at(segments, move.half_size);
  const bool starts = DocumentStartsIn(segments, at.batch, 0, segments.chunks);
  if (!at.active) {
    return;
  }
  const int64_t offset = at.pair * move.half_size * State::kParts + at.element;
  State state = State::Load(local + offset, move.half_size);
  const float factor = starts ? 0.0F : FarDecay(segments.slopes[at.head], segments.tokens);
  if (in != nullptr && factor != 0) {
    Angle angle = {1, 0};
    if constexpr (kRotary) {
      angle = move.AngleOver<kGradient>(at, segments.tokens);
    }
    state = State::Load(in + offset, move.half_size).Move(angle, factor, state);
  }
  state.Store(out + offset, move.half_size);
}

MoveParameters MoveOf(const LinearAttentionShape& shape, const Segments& segments) {
  return {segments, shape.theta, shape.key_size * shape.value_size,
          static_cast<int>(shape.key_size), static_cast<int>(shape.value_size)};
}

dim3 ElementGrid(const MoveParameters& move) {
  const int64_t per_block = 4 * kScanThreads;
  return {static_cast<unsigned>((move.half_size + per_block - 1) / per_block),
          static_cast<unsigned>(move.segments.batch * move.segments.heads)};
}

template <bool kGradient>
cudaError_t LaunchHop(const StateHopArgs& args, cudaStream_t stream) {
  Segments segments;
  if (const cudaError_t error = PlanSegments(args.problem, &segments); error != cudaSuccess) {
    return error;
  }
  const MoveParameters move = MoveOf(args.problem.shape, segments);
  if (args.problem.shape.theta != nullptr) {
    HopKernel<kGradient, true><<<ElementGrid(move), kScanThreads, 0, stream>>>(
        move, args.state_in, args.local, args.state_out);
  } else {
    HopKernel<kGradient, false><<<ElementGrid(move), kScanThreads, 0, stream>>>(
        move, args.state_in, args.local, args.state_out);
  }
  return cudaGetLastError();
}

}  // namespace

template <bool kGradient>
cudaError_t ScanSegmentStates(const LinearAttentionShape& shape, const Segments& segments,
                              float* states, float* total, cudaStream_t stream) {
  const MoveParameters move = MoveOf(shape, segments);
  if (shape.theta != nullptr) {
    ScanKernel<kGradient, true>
        <<<ElementGrid(move), kScanThreads, 0, stream>>>(move, states, total);
  } else {
    ScanKernel<kGradient, false>
        <<<ElementGrid(move), kScanThreads, 0, stream>>>(move, states, total);
  }
  return cudaGetLastError();
}

template cudaError_t ScanSegmentStates<false>(const LinearAttentionShape&, const Segments&, float*,
                                              float*, cudaStream_t);
template cudaError_t ScanSegmentStates<true>(const LinearAttentionShape&, const Segments&, float*,
                                             float*, cudaStream_t);

cudaError_t StateHop(const StateHopArgs& args, cudaStream_t stream) {
  return LaunchHop<false>(args, stream);
}

cudaError_t StateGradientHop(const StateHopArgs& args, cudaStream_t stream) {
  return LaunchHop<true>(args, stream);
}

}  // namespace lasp::kernels::cuda
