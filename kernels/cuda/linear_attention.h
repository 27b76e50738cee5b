// Causal linear attention on Hopper GPUs, in the parts that LASP overlaps
// (kernels/linear_attention.h has the equations, the conventions of states and origins, and the CPU
// twins).
//
//   forward   LocalState           k, v -> KV_loc, and the local state before each segment
//             StateHop             KV_out = lambda^C KV_in + KV_loc                 -> next rank
//             Output               q, k, v, KV_in -> o, in one pass
//   backward  LocalStateGradient   q, do -> dKV_loc, and the local gradient after each segment
//             StateGradientHop     dKV_out = lambda^C dKV_in + dKV_loc              -> previous
//             rank QueryGradient        k, v, do, saved states -> dq; needs nothing of other ranks
//             KeyValueGradient     q, k, v, do, dKV_in -> dk, dv, in one pass
//             ThetaGradient        with learned LRPE frequencies: their gradient
//
// Activations are bf16, states fp32; a chunk of 64 tokens is worked on at a time, its products with
// fp32 sums. Where batch x heads does not fill the GPU, the sequence is cut into segments, one
// thread block each, whose first states LocalState finds in a pass over k and v alone. Only the
// last 40 / slope tokens of a segment count there: what is left out is below e^-40 of what it
// joins. Nothing allocates, synchronises or adds atomically: equal calls give equal bits.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/bfloat16.h"
#include "kernels/linear_attention.h"

namespace lasp::kernels::cuda {

struct LinearAttentionProblem {
  // Sizes: key_size and value_size are multiples of 8 up to 128. slopes and theta are in device
  // memory.
  LinearAttentionShape shape;
  // Where documents start inside the slice, from MarkDocumentStarts (device memory); a state does
  // not pass a start. Null: no document starts here.
  const uint64_t* document_marks = nullptr;
  int segments = 0;         // at most; 0: as many as fill the GPU
  int multiprocessors = 0;  // what the grids may fill; 0: all
};

// Into how many segments the sequence is cut. Deterministic for a GPU model and a problem.
int64_t SegmentCount(const LinearAttentionProblem& problem);

// Elements of the states at the segments' borders [batch, heads, SegmentCount, StateRows,
// value_size], fp32.
int64_t SegmentStateElements(const LinearAttentionProblem& problem);

struct DocumentMarksArgs {
  int64_t batch = 0;
  int64_t tokens = 0;
  const int64_t* starts = nullptr;  // [count], positions in [0, batch * tokens), any order
  int64_t count = 0;
  uint64_t* marks = nullptr;  // [batch, ceil(tokens / 64)]: bit i of a word is its token i
};

// A document that starts at a row's first token does not see KV_in; without a start there, it does.
cudaError_t MarkDocumentStarts(const DocumentMarksArgs& args, cudaStream_t stream);

struct LocalStateArgs {
  LinearAttentionProblem problem;
  HeadsView<const Bf16> k;
  HeadsView<const Bf16> v;
  float* segment_states = nullptr;  // SegmentStateElements; null only where there is one segment
  float* state = nullptr;           // KV_loc; null: not wanted
};

struct OutputArgs {
  LinearAttentionProblem problem;
  HeadsView<const Bf16> q;
  HeadsView<const Bf16> k;
  HeadsView<const Bf16> v;
  const float* segment_states = nullptr;  // from LocalState; null only where there is one segment
  const float* state_in = nullptr;        // KV_in; null: zeros
  HeadsView<Bf16> output;                 // o
  // SegmentStateElements: the state before each segment, for QueryGradient; null: not kept. May be
  // `segment_states`.
  float* segment_starts = nullptr;
  // The state after the slice, KV_out; null: not wanted. Must be null where there is theta
  // (StateHop gives it).
  float* state_out = nullptr;
};

struct LocalStateGradientArgs {
  LinearAttentionProblem problem;
  HeadsView<const Bf16> q;
  HeadsView<const Bf16> output_gradient;     // do
  float* segment_state_gradients = nullptr;  // as segment_states
  float* state_gradient = nullptr;           // dKV_loc; null: not wanted
};

struct QueryGradientArgs {
  LinearAttentionProblem problem;
  HeadsView<const Bf16> k;
  HeadsView<const Bf16> v;
  HeadsView<const Bf16> output_gradient;
  const float* segment_starts = nullptr;  // from Output
  HeadsView<Bf16> q_gradient;
};

struct KeyValueGradientArgs {
  LinearAttentionProblem problem;
  HeadsView<const Bf16> q;
  HeadsView<const Bf16> k;
  HeadsView<const Bf16> v;
  HeadsView<const Bf16> output_gradient;
  const float* segment_state_gradients = nullptr;  // from LocalStateGradient
  const float* state_gradient_in = nullptr;        // dKV_in; null: zeros
  HeadsView<Bf16> k_gradient;
  HeadsView<Bf16> v_gradient;
};

// The gradient of learned theta over this slice, formed by distances; the sum over all ranks is the
// gradient.
struct ThetaGradientArgs {
  LinearAttentionProblem problem;
  HeadsView<const Bf16> q;
  HeadsView<const Bf16> k;
  HeadsView<const Bf16> v;
  HeadsView<const Bf16> output_gradient;
  const float* segment_starts = nullptr;           // from Output
  const float* segment_state_gradients = nullptr;  // from LocalStateGradient
  const float* state_gradient_in = nullptr;        // dKV_in; null: zeros
  float* workspace = nullptr;                      // ThetaGradientWorkspaceElements
  float* theta_gradient = nullptr;                 // [heads, key_size], added to
};

int64_t ThetaGradientWorkspaceElements(const LinearAttentionProblem& problem);

struct StateHopArgs {
  LinearAttentionProblem problem;
  const float* state_in = nullptr;  // KV_in or dKV_in; null: zeros
  const float* local = nullptr;     // KV_loc or dKV_loc
  float* state_out = nullptr;       // KV_out or dKV_out; may be `state_in` or `local`
};

// Views' pointers and strides are multiples of 16 bytes. Each returns cudaErrorInvalidValue for
// sizes or strides that it does not take, cudaErrorNotSupported for what needs another GPU.
cudaError_t LocalState(const LocalStateArgs& args, cudaStream_t stream);
cudaError_t StateHop(const StateHopArgs& args, cudaStream_t stream);
cudaError_t Output(const OutputArgs& args, cudaStream_t stream);
cudaError_t LocalStateGradient(const LocalStateGradientArgs& args, cudaStream_t stream);
cudaError_t StateGradientHop(const StateHopArgs& args, cudaStream_t stream);
cudaError_t QueryGradient(const QueryGradientArgs& args, cudaStream_t stream);
cudaError_t KeyValueGradient(const KeyValueGradientArgs& args, cudaStream_t stream);
cudaError_t ThetaGradient(const ThetaGradientArgs& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
