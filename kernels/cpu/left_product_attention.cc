#include "kernels/left_product_attention.h"

#include <limits>
#include <vector>

#include "kernels/cpu/linear_attention_blocks.h"

namespace lasp::kernels::cpu {
namespace {

// One block of queries against one block of keys of a head, and the steps that both passes share.
template <typename T>
class BlockPair {
 public:
  BlockPair(const LinearAttentionShape& shape, const TileSizes<T>& sizes, int64_t head_index,
            int64_t distance, Scratch<T>& scratch)
      : shape_(shape),
        sizes_(sizes),
        distance_(distance),
        head_(shape, head_index, scratch.Take(sizes.tables)),
        theta_(shape.theta == nullptr ? nullptr : shape.theta + head_index * shape.key_size),
        queries_(scratch.Take(sizes.keys)),
        keys_(scratch.Take(sizes.keys)),
        keys_transposed_(scratch.Take(sizes.keys_transposed)),
        scores_(scratch.Take(sizes.scores)) {}

  static int64_t ScratchElements(const TileSizes<T>& sizes) {
    return sizes.tables + 2 * sizes.keys + sizes.keys_transposed + sizes.scores;
  }

  // The blocks of keys that a block of queries sees.
  int64_t VisibleBlocks(int64_t query_block) const {
    return distance_ == 0 ? query_block + 1 : BlockCount(shape_);
  }

  // The first block of queries that sees a block of keys.
  int64_t FirstViewer(int64_t key_block) const { return distance_ == 0 ? key_block : 0; }

  void LoadQueries(const Block& block, Rows<const T> q) {
    query_block_ = block;
    head_.LoadKeys(block.length, q, block.start, queries_);
  }

  // As seen from the start of the block of queries, where the layer has LRPE.
  void LoadKeys(const Block& block, Rows<const T> k) {
    key_block_ = block;
    head_.LoadKeys(block.length, k, block.start, keys_);
    if (head_.rotary() && Distance() > 0) {
      TurnRows(block.length, shape_.key_size, Turn::Of(theta_, shape_.key_size, Distance()), keys_,
               keys_);
    }
    for (int64_t j = 0; j < block.length; ++j) {
      // What has left the range of normal numbers would only slow the products down.
      const double decay = diagonal() ? 0 : head_.Decay(Distance() - 1 - j);
      key_scale_[j] =
          decay < static_cast<double>(std::numeric_limits<T>::min()) ? T{0} : static_cast<T>(decay);
    }
  }

  // scores = Q K^T (.) M
  void Scores() {
    TransposeTile(key_block_.length, sizes_.state_rows, keys_, keys_transposed_);
    Product(queries_, sizes_.key_stride, sizes_.state_rows, keys_transposed_, scores_);
  }

  // c = a b (.) M, for a [queries, depth] and b [depth, keys].
  void Product(const T* a, int64_t a_stride, int64_t depth, const T* b, T* c) const {
    TileGemm<T>({.m = query_block_.length,
                 .n = key_block_.length,
                 .k = depth,
                 .a = a,
                 .a_stride = a_stride,
                 .b = b,
                 .b_stride = score_stride(),
                 .c = c,
                 .c_stride = score_stride(),
                 .part = diagonal() ? Part::kLowerC : Part::kAll});
    if (diagonal()) {
      MaskDecay(query_block_.length, head_.KeyScale(query_block_.length), c);
      return;
    }
    for (int64_t i = 0; i < query_block_.length; ++i) {
      const T row_scale = head_.QueryScale()[i];
      T* const row = c + i * score_stride();
      for (int64_t j = 0; j < key_block_.length; ++j) {
        row[j] *= row_scale * key_scale_[j];
      }
    }
  }

  // c [+]= s b, for a tile s of scores and b [keys, width].
  void FromKeys(const T* s, const T* b, int64_t width, bool accumulate, T* c) const {
    TileGemm<T>({.m = query_block_.length,
                 .n = width,
                 .k = key_block_.length,
                 .a = s,
                 .a_stride = score_stride(),
                 .b = b,
                 .b_stride = TileStride<T>(width),
                 .c = c,
                 .c_stride = TileStride<T>(width),
                 .accumulate = accumulate,
                 .part = diagonal() ? Part::kLowerA : Part::kAll});
  }

  // c [+]= s^T b, for b [queries, width].
  void FromQueries(const T* s, const T* b, int64_t width, bool accumulate, T* c) const {
    TileGemm<T>({.m = key_block_.length,
                 .n = width,
                 .k = query_block_.length,
                 .a = s,
                 .a_stride = score_stride(),
                 .transpose_a = true,
                 .b = b,
                 .b_stride = TileStride<T>(width),
                 .c = c,
                 .c_stride = TileStride<T>(width),
                 .accumulate = accumulate,
                 .part = diagonal() ? Part::kUpperA : Part::kAll});
  }

  // Between the blocks' first tokens.
  int64_t Distance() const { return distance_ + query_block_.start - key_block_.start; }

  // Turns a gradient of what LoadKeys left back to the keys' own block.
  void TurnBack(T* key_gradient) const {
    if (head_.rotary() && Distance() > 0) {
      TurnRows(key_block_.length, shape_.key_size, Turn::Of(theta_, shape_.key_size, -Distance()),
               key_gradient, key_gradient);
    }
  }

  const AttentionHead<T>& head() const { return head_; }

  const Block& query_block() const { return query_block_; }

  const Block& key_block() const { return key_block_; }

  int64_t score_stride() const { return TileStride<T>(key_block_.length); }

  const T* queries() const { return queries_; }

  const T* keys() const { return keys_; }

  const T* scores() const { return scores_; }

 private:
  bool diagonal() const { return Distance() == 0; }

  const LinearAttentionShape& shape_;
  const TileSizes<T>& sizes_;
  const int64_t distance_;
  AttentionHead<T> head_;
  const double* theta_;  // of this head, or null
  T* queries_;
  T* keys_;
  T* keys_transposed_;
  T* scores_;
  // lambda^{Distance() - 1 - j}; lambda^{i + 1} is the queries'.
  T key_scale_[kLinearAttentionBlock];
  Block query_block_ = {};
  Block key_block_ = {};
};

// The gradients of one head.
template <typename T>
class HeadGradients {
 public:
  HeadGradients(const LeftProductGradientsArgs<T>& args, const TileSizes<T>& sizes, int64_t batch,
                int64_t head_index, Scratch<T>& scratch, double* theta_sum)
      : args_(args),
        shape_(args.shape),
        sizes_(sizes),
        theta_sum_(theta_sum),
        pair_(shape_, sizes, head_index, args.distance, scratch),
        q_(RowsOf(args.q, batch, head_index)),
        k_(RowsOf(args.k, batch, head_index)),
        v_(RowsOf(args.v, batch, head_index)),
        d_o_(RowsOf(args.output_gradient, batch, head_index)),
        d_q_(RowsOf(args.q_gradient, batch, head_index)),
        d_k_(RowsOf(args.k_gradient, batch, head_index)),
        d_v_(RowsOf(args.v_gradient, batch, head_index)),
        key_gradient_(scratch.Take(sizes.keys)),
        part_(scratch.Take(sizes.keys)),
        values_(scratch.Take(sizes.values)),
        values_transposed_(scratch.Take(sizes.values_transposed)),
        output_gradient_(scratch.Take(sizes.values)),
        value_gradient_(scratch.Take(sizes.values)),
        score_gradient_(scratch.Take(sizes.scores)),
        weighted_(scratch.Take(sizes.scores)) {}

  static int64_t ScratchElements(const TileSizes<T>& sizes) {
    return BlockPair<T>::ScratchElements(sizes) + 2 * sizes.keys + 3 * sizes.values +
           sizes.values_transposed + 2 * sizes.scores;
  }

  void Run() {
    if (!args_.adds) {
      for (int64_t token = 0; token < shape_.tokens; ++token) {
        std::fill_n(d_q_.At(token), shape_.key_size, T{0});
      }
    }
    for (int64_t keys = 0; keys < BlockCount(shape_); ++keys) {
      const Block key_block = BlockAt(shape_, keys);
      const int64_t first = pair_.FirstViewer(keys);
      for (int64_t queries = first; queries < BlockCount(shape_); ++queries) {
        AddPair(BlockAt(shape_, queries), key_block, queries > first);
      }
      StoreTile(key_block.length, shape_.value_size, value_gradient_, false,
                d_v_.At(key_block.start), d_v_.stride);
    }
  }

 private:
  void AddPair(const Block& query_block, const Block& key_block, bool accumulate) {
    pair_.LoadQueries(query_block, q_);
    pair_.LoadKeys(key_block, k_);
    LoadTile(query_block.length, shape_.value_size, d_o_.At(query_block.start), d_o_.stride,
             output_gradient_);
    LoadTile(key_block.length, shape_.value_size, v_.At(key_block.start), v_.stride, values_);
    pair_.Scores();
    TransposeTile(key_block.length, shape_.value_size, values_, values_transposed_);
    pair_.Product(output_gradient_, sizes_.value_stride, shape_.value_size, values_transposed_,
                  score_gradient_);
    pair_.FromQueries(pair_.scores(), output_gradient_, shape_.value_size, accumulate,
                      value_gradient_);
    pair_.FromQueries(score_gradient_, pair_.queries(), sizes_.state_rows, false, key_gradient_);
    pair_.TurnBack(key_gradient_);
    pair_.head().StoreKeys(key_block.length, key_gradient_, accumulate, d_k_, key_block.start);
    pair_.FromKeys(score_gradient_, pair_.keys(), sizes_.state_rows, false, part_);
    pair_.head().StoreKeys(query_block.length, part_, true, d_q_, query_block.start);
    if (theta_sum_ != nullptr) {
      AddTheta();
    }
  }

  // X = (score_gradient (.) distance) K, the distance of each query from each key.
  void AddTheta() {
    const int64_t stride = pair_.score_stride();
    for (int64_t i = 0; i < pair_.query_block().length; ++i) {
      for (int64_t j = 0; j < pair_.key_block().length; ++j) {
        weighted_[i * stride + j] =
            static_cast<T>(pair_.Distance() + i - j) * score_gradient_[i * stride + j];
      }
    }
    pair_.FromKeys(weighted_, pair_.keys(), sizes_.state_rows, false, part_);
    pair_.head().AddTheta(pair_.query_block().length, q_, pair_.query_block().start, part_, 1, 0,
                          theta_sum_);
  }

  const LeftProductGradientsArgs<T>& args_;
  const LinearAttentionShape& shape_;
  const TileSizes<T>& sizes_;
  double* theta_sum_;
  BlockPair<T> pair_;
  Rows<const T> q_, k_, v_, d_o_;
  Rows<T> d_q_, d_k_, d_v_;
  T *key_gradient_, *part_;
  T *values_, *values_transposed_, *output_gradient_, *value_gradient_;
  T *score_gradient_, *weighted_;
};

}  // namespace

template <typename T>
void LeftProductOutput(const LeftProductOutputArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  const TileSizes<T> sizes(shape);
  ForEachHead<T>(shape, BlockPair<T>::ScratchElements(sizes) + 2 * sizes.values,
                 [&](int64_t /*pair*/, int64_t batch, int64_t head_index, Scratch<T>& scratch) {
                   BlockPair<T> pair(shape, sizes, head_index, args.distance, scratch);
                   T* const values = scratch.Take(sizes.values);
                   T* const output = scratch.Take(sizes.values);
                   const Rows<const T> v = RowsOf(args.v, batch, head_index);
                   const Rows<T> o = RowsOf(args.output, batch, head_index);
                   for (int64_t queries = 0; queries < BlockCount(shape); ++queries) {
                     const Block query_block = BlockAt(shape, queries);
                     pair.LoadQueries(query_block, RowsOf(args.q, batch, head_index));
                     for (int64_t keys = 0; keys < pair.VisibleBlocks(queries); ++keys) {
                       const Block key_block = BlockAt(shape, keys);
                       pair.LoadKeys(key_block, RowsOf(args.k, batch, head_index));
                       LoadTile(key_block.length, shape.value_size, v.At(key_block.start), v.stride,
                                values);
                       pair.Scores();
                       pair.FromKeys(pair.scores(), values, shape.value_size, keys > 0, output);
                     }
                     StoreTile(query_block.length, shape.value_size, output, args.adds,
                               o.At(query_block.start), o.stride);
                   }
                 });
}

template <typename T>
void LeftProductGradients(const LeftProductGradientsArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  const TileSizes<T> sizes(shape);
  const bool learned = args.theta_gradient != nullptr && shape.theta != nullptr;
  std::vector<double> theta_sums(
      learned ? static_cast<size_t>(shape.batch * shape.heads * shape.key_size) : 0);
  ForEachHead<T>(shape, HeadGradients<T>::ScratchElements(sizes),
                 [&](int64_t pair, int64_t batch, int64_t head_index, Scratch<T>& scratch) {
                   double* const theta_sum =
                       learned ? theta_sums.data() + pair * shape.key_size : nullptr;
                   HeadGradients<T>(args, sizes, batch, head_index, scratch, theta_sum).Run();
                 });
  if (learned) {
    AddThetaSums(shape, theta_sums.data(), args.theta_gradient);
  }
}

#define LASP_INSTANTIATE(T)                                            \
  template void LeftProductOutput<T>(const LeftProductOutputArgs<T>&); \
  template void LeftProductGradients<T>(const LeftProductGradientsArgs<T>&);
LASP_INSTANTIATE(float)
LASP_INSTANTIATE(double)
#undef LASP_INSTANTIATE

}  // namespace lasp::kernels::cpu
