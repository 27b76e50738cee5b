// The gradients of linear attention within a slice.
#include <vector>

#include "kernels/cpu/linear_attention_blocks.h"

namespace lasp::kernels::cpu {
namespace {

// The tiles of one block, and the steps that fill them.
template <typename T>
class BlockGradients {
 public:
  BlockGradients(const IntraGradientsArgs<T>& args, const TileSizes<T>& sizes, int64_t pair,
                 Scratch<T>& scratch, double* theta_sum)
      : args_(args),
        shape_(args.shape),
        sizes_(sizes),
        pair_(pair),
        theta_sum_(theta_sum),
        head_(shape_, pair % shape_.heads, scratch.Take(sizes.tables)),
        q_(View(args.q)),
        k_(View(args.k)),
        v_(View(args.v)),
        d_o_(View(args.output_gradient)),
        d_q_(View(args.q_gradient)),
        d_k_(View(args.k_gradient)),
        d_v_(View(args.v_gradient)),
        queries_(scratch.Take(sizes.keys)),
        keys_(scratch.Take(sizes.keys)),
        key_gradient_(scratch.Take(sizes.keys)),
        keys_transposed_(scratch.Take(sizes.keys_transposed)),
        values_(scratch.Take(sizes.values)),
        output_gradient_(scratch.Take(sizes.values)),
        value_gradient_(scratch.Take(sizes.values)),
        values_transposed_(scratch.Take(sizes.values_transposed)),
        state_(scratch.Take(sizes.state)),
        state_gradient_(scratch.Take(sizes.state)),
        state_transposed_(scratch.Take(sizes.state_transposed)),
        scores_(scratch.Take(sizes.scores)),
        score_gradient_(scratch.Take(sizes.scores)),
        weighted_(scratch.Take(sizes.scores)),
        documents_(shape_, 0, 0) {}

  static int64_t ScratchElements(const TileSizes<T>& sizes) {
    return sizes.tables + 3 * sizes.keys + sizes.keys_transposed + 3 * sizes.values +
           sizes.values_transposed + 2 * sizes.state + sizes.state_transposed + 3 * sizes.scores;
  }

  void Run(const Block& block) {
    block_ = block;
    documents_ = BlockDocuments<T>(shape_, pair_ / shape_.heads, block.index);
    score_stride_ = TileStride<T>(block.length);
    has_state_ = block.index > 0;                                // the first block's is zero
    has_state_gradient_ = block.index < BlockCount(shape_) - 1;  // the last block's is zero
    Load();
    Scores();
    QueryGradient();
    KeyAndValueGradients();
    if (theta_sum_ != nullptr && has_state_ && has_state_gradient_ && !documents_.start()) {
      CrossingStates();
    }
  }

 private:
  template <typename U>
  Rows<U> View(const HeadsView<U>& view) const {
    return RowsOf(view, pair_ / shape_.heads, pair_ % shape_.heads);
  }

  const T* StateAt(const T* states) const {
    return states +
           (pair_ * BlockCount(shape_) + block_.index) * sizes_.state_rows * shape_.value_size;
  }

  void Load() {
    head_.LoadKeys(block_.length, q_, block_.start, queries_);
    head_.LoadKeys(block_.length, k_, block_.start, keys_);
    LoadTile(block_.length, shape_.value_size, v_.At(block_.start), v_.stride, values_);
    LoadTile(block_.length, shape_.value_size, d_o_.At(block_.start), d_o_.stride,
             output_gradient_);
  }

  // scores = Q K^T (.) M,  score_gradient = dO V^T (.) M
  void Scores() {
    const T* const mask = head_.KeyScale(block_.length);
    TransposeTile(block_.length, sizes_.state_rows, keys_, keys_transposed_);
    TileGemm<T>({.m = block_.length,
                 .n = block_.length,
                 .k = sizes_.state_rows,
                 .a = queries_,
                 .a_stride = sizes_.key_stride,
                 .b = keys_transposed_,
                 .b_stride = score_stride_,
                 .c = scores_,
                 .c_stride = score_stride_,
                 .part = Part::kLowerC});
    MaskDecay(block_.length, mask, scores_);
    documents_.Part(block_.length, score_stride_, scores_);
    TransposeTile(block_.length, shape_.value_size, values_, values_transposed_);
    TileGemm<T>({.m = block_.length,
                 .n = block_.length,
                 .k = shape_.value_size,
                 .a = output_gradient_,
                 .a_stride = sizes_.value_stride,
                 .b = values_transposed_,
                 .b_stride = score_stride_,
                 .c = score_gradient_,
                 .c_stride = score_stride_,
                 .part = Part::kLowerC});
    MaskDecay(block_.length, mask, score_gradient_);
    documents_.Part(block_.length, score_stride_, score_gradient_);
  }

  // dQ = diag(lambda^{i+1}) dO S^T + score_gradient K
  void QueryGradient() {
    if (has_state_) {
      LoadTile(sizes_.state_rows, shape_.value_size, StateAt(args_.block_states), shape_.value_size,
               state_);
      KeyFromValue(output_gradient_, documents_.SeeingBefore(block_.length, head_.QueryScale()),
                   state_);
      if (theta_sum_ != nullptr) {  // queries against the incoming state: distance i
        head_.AddTheta(block_.length, q_, block_.start, key_gradient_, 0, 1, theta_sum_);
      }
    }
    KeyFromScores(false, keys_, has_state_);
    head_.StoreKeys(block_.length, key_gradient_, false, d_q_, block_.start);
    if (theta_sum_ != nullptr) {
      WithinBlock();
    }
  }

  // With R the gradient of the state after the block, its origin at the block's start:
  // dK = diag(lambda^{L-1-j}) V R^T + score_gradient^T Q
  // dV = diag(lambda^{L-1-j}) K R + scores^T dO
  void KeyAndValueGradients() {
    if (has_state_gradient_) {
      const T* const scale = documents_.SeenBehind(block_.length, head_.KeyScale(block_.length));
      LoadTile(sizes_.state_rows, shape_.value_size, StateAt(args_.block_state_gradients),
               shape_.value_size, state_gradient_);
      KeyFromValue(values_, scale, state_gradient_);
      if (theta_sum_ != nullptr) {  // keys against the outgoing gradient: distance L - j
        head_.AddTheta(block_.length, k_, block_.start, key_gradient_,
                       -static_cast<double>(block_.length), 1, theta_sum_);
      }
      TileGemm<T>({.m = block_.length,
                   .n = shape_.value_size,
                   .k = sizes_.state_rows,
                   .a = keys_,
                   .a_stride = sizes_.key_stride,
                   .b = state_gradient_,
                   .b_stride = sizes_.value_stride,
                   .c = value_gradient_,
                   .c_stride = sizes_.value_stride,
                   .row_scale = scale});
    }
    KeyFromScores(true, queries_, has_state_gradient_);
    head_.StoreKeys(block_.length, key_gradient_, false, d_k_, block_.start);
    TileGemm<T>({.m = block_.length,
                 .n = shape_.value_size,
                 .k = block_.length,
                 .a = scores_,
                 .a_stride = score_stride_,
                 .transpose_a = true,
                 .b = output_gradient_,
                 .b_stride = sizes_.value_stride,
                 .c = value_gradient_,
                 .c_stride = sizes_.value_stride,
                 .accumulate = has_state_gradient_,
                 .part = Part::kUpperA});
    StoreTile(block_.length, shape_.value_size, value_gradient_, false, d_v_.At(block_.start),
              d_v_.stride);
  }

  // key_gradient = diag(scale) values state^T
  void KeyFromValue(const T* values, const T* scale, const T* state) {
    TransposeTile(sizes_.state_rows, shape_.value_size, state, state_transposed_);
    TileGemm<T>({.m = block_.length,
                 .n = sizes_.state_rows,
                 .k = shape_.value_size,
                 .a = values,
                 .a_stride = sizes_.value_stride,
                 .b = state_transposed_,
                 .b_stride = sizes_.key_stride,
                 .c = key_gradient_,
                 .c_stride = sizes_.key_stride,
                 .row_scale = scale});
  }

  // key_gradient = [key_gradient +] score_gradient keys, or its transpose times keys
  void KeyFromScores(bool transpose, const T* keys, bool accumulate) {
    TileGemm<T>({.m = block_.length,
                 .n = sizes_.state_rows,
                 .k = block_.length,
                 .a = score_gradient_,
                 .a_stride = score_stride_,
                 .transpose_a = transpose,
                 .b = keys,
                 .b_stride = sizes_.key_stride,
                 .c = key_gradient_,
                 .c_stride = sizes_.key_stride,
                 .accumulate = accumulate,
                 .part = transpose ? Part::kUpperA : Part::kLowerA});
  }

  // Theta's gradient of the pairs inside the block: X = (score_gradient (.) (i - j)) K.
  void WithinBlock() {
    for (int64_t i = 0; i < block_.length; ++i) {
      for (int64_t j = 0; j < block_.length; ++j) {
        weighted_[i * score_stride_ + j] =
            static_cast<T>(i - j) * score_gradient_[i * score_stride_ + j];
      }
    }
    TileGemm<T>({.m = block_.length,
                 .n = sizes_.state_rows,
                 .k = block_.length,
                 .a = weighted_,
                 .a_stride = score_stride_,
                 .b = keys_,
                 .b_stride = sizes_.key_stride,
                 .c = key_gradient_,
                 .c_stride = sizes_.key_stride,
                 .part = Part::kLowerA});
    head_.AddTheta(block_.length, q_, block_.start, key_gradient_, 1, 0, theta_sum_);
  }

  // Theta's gradient of the pairs whose query lies after the block and whose key before it, each of
  // which counts the block's length: R_a . p_b - R_b . p_a for p = lambda^L S, R as above.
  void CrossingStates() {
    const double weight = static_cast<double>(block_.length) * head_.Decay(block_.length);
    AddThetaStates(shape_.key_size, shape_.value_size, weight, state_gradient_, sizes_.value_stride,
                   state_, sizes_.value_stride, theta_sum_);
  }

  const IntraGradientsArgs<T>& args_;
  const LinearAttentionShape& shape_;
  const TileSizes<T>& sizes_;
  int64_t pair_;
  double* theta_sum_;
  AttentionHead<T> head_;
  Rows<const T> q_, k_, v_, d_o_;
  Rows<T> d_q_, d_k_, d_v_;
  T *queries_, *keys_, *key_gradient_, *keys_transposed_;
  T *values_, *output_gradient_, *value_gradient_, *values_transposed_;
  T *state_, *state_gradient_, *state_transposed_;
  T *scores_, *score_gradient_, *weighted_;
  BlockDocuments<T> documents_;  // of the block
  Block block_ = {};
  int64_t score_stride_ = 0;
  bool has_state_ = false;
  bool has_state_gradient_ = false;
};

}  // namespace

template <typename T>
void IntraGradients(const IntraGradientsArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  const TileSizes<T> sizes(shape);
  const bool learned = args.theta_gradient != nullptr && shape.theta != nullptr;
  std::vector<double> theta_sums(
      learned ? static_cast<size_t>(shape.batch * shape.heads * shape.key_size) : 0);
  ForEachHead<T>(shape, BlockGradients<T>::ScratchElements(sizes),
                 [&](int64_t pair, int64_t /*batch*/, int64_t /*head*/, Scratch<T>& scratch) {
                   double* const theta_sum =
                       learned ? theta_sums.data() + pair * shape.key_size : nullptr;
                   BlockGradients<T> gradients(args, sizes, pair, scratch, theta_sum);
                   for (int64_t index = 0; index < BlockCount(shape); ++index) {
                     gradients.Run(BlockAt(shape, index));
                   }
                 });
  if (learned) {
    AddThetaSums(shape, theta_sums.data(), args.theta_gradient);
  }
}

template void IntraGradients<float>(const IntraGradientsArgs<float>&);
template void IntraGradients<double>(const IntraGradientsArgs<double>&);

}  // namespace lasp::kernels::cpu
