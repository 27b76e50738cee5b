#include "kernels/softmax_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/exp.h"
#include "kernels/cpu/linear_attention_head.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_sums.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/softmax_documents.h"
#include "kernels/cpu/tile.h"

namespace lasp::kernels::cpu {
namespace {

constexpr int64_t kPiece = 64;  // tokens of a tile

int64_t PieceCount(int64_t tokens) { return (tokens + kPiece - 1) / kPiece; }

struct Piece {
  int64_t begin;
  int64_t size;
};

Piece PieceAt(int64_t index, int64_t tokens) {
  const int64_t begin = index * kPiece;
  return {begin, std::min(kPiece, tokens - begin)};
}

// Of the tiles of one head, in elements.
template <typename T>
struct TileCounts {
  explicit TileCounts(int64_t head_size)
      : rows(TileElements<T>(kPiece, head_size)),
        columns(TileElements<T>(head_size, kPiece)),
        scores(TileElements<T>(kPiece, kPiece)) {}

  int64_t rows;     // [kPiece, head_size]
  int64_t columns;  // [head_size, kPiece]
  int64_t scores;   // [kPiece, kPiece]
};

template <typename T>
T ScaleOf(const SoftmaxAttentionShape& shape) {
  return static_cast<T>(1 / std::sqrt(static_cast<double>(shape.head_size)));
}

// A query's keys within a piece: [begin, end).
struct Visible {
  int64_t begin;
  int64_t end;
};

// What query `i` of a piece sees of a piece of keys, being allowed to see those from `first` on.
Visible VisibleOf(const SoftmaxAttentionShape& shape, const Piece& queries, const Piece& keys,
                  int64_t i, int64_t first) {
  const int64_t end =
      std::clamp<int64_t>(shape.offset + queries.begin + i + 1 - keys.begin, 0, keys.size);
  return {std::clamp<int64_t>(first - keys.begin, 0, end), end};
}

// c [rows, columns' width] [+]= a b, all tiles: a [rows, depth], b [depth, width].
template <typename T>
void Product(int64_t rows, int64_t depth, int64_t width, const T* a, const T* b, bool accumulate,
             T* c) {
  TileGemm<T>({.m = rows,
               .n = width,
               .k = depth,
               .a = a,
               .a_stride = TileStride<T>(depth),
               .b = b,
               .b_stride = TileStride<T>(width),
               .c = c,
               .c_stride = TileStride<T>(width),
               .accumulate = accumulate});
}

// c [rows, width] [+]= a^T b, all tiles: a [depth, rows], b [depth, width].
template <typename T>
void TransposedProduct(int64_t rows, int64_t depth, int64_t width, const T* a, const T* b,
                       bool accumulate, T* c) {
  TileGemm<T>({.m = rows,
               .n = width,
               .k = depth,
               .a = a,
               .a_stride = TileStride<T>(rows),
               .transpose_a = true,
               .b = b,
               .b_stride = TileStride<T>(width),
               .c = c,
               .c_stride = TileStride<T>(width),
               .accumulate = accumulate});
}

// The softmax of one query over the keys so far: sum = sum_j exp(s_j - maximum).
template <typename T>
struct RunningSoftmax {
  T maximum = -std::numeric_limits<T>::infinity();
  double sum = 0;
};

// From products q . k to the weights exp(s - maximum) of those that are visible, and zeros. Returns
// by what all that was weighted before has to be multiplied. The maximum is infinite until a key
// has been visible.
template <typename T>
LASP_ALWAYS_INLINE inline T Weigh(const Visible& visible, int64_t keys, T scale, T* row,
                                  RunningSoftmax<T>* softmax) {
  std::fill(row, row + visible.begin, T{0});
  std::fill(row + visible.end, row + keys, T{0});
  if (visible.begin == visible.end) {
    return 1;
  }
  T highest = softmax->maximum;
#pragma omp simd reduction(max : highest)
  for (int64_t j = visible.begin; j < visible.end; ++j) {
    row[j] *= scale;
    highest = row[j] > highest ? row[j] : highest;
  }
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = visible.begin; j < visible.end; ++j) {
    row[j] = Exp(row[j] - highest);
    sum += row[j];
  }
  const T factor = Exp(softmax->maximum - highest);
  softmax->sum = softmax->sum * static_cast<double>(factor) + static_cast<double>(sum);
  softmax->maximum = highest;
  return factor;
}

// The output of one piece of one head's queries.
template <typename T>
class OutputPiece {
 public:
  OutputPiece(const SoftmaxAttentionOutputArgs<T>& args, const TileCounts<T>& counts,
              const FirstKeys& first_keys, int64_t batch, int64_t head, int64_t piece,
              Scratch<T>& scratch)
      : args_(args),
        shape_(args.shape),
        first_keys_(first_keys),
        batch_(batch),
        queries_(PieceAt(piece, shape_.queries)),
        q_(RowsOf(args.q, batch, head)),
        k_(RowsOf(args.k, batch, head * shape_.kv_heads / shape_.heads)),
        v_(RowsOf(args.v, batch, head * shape_.kv_heads / shape_.heads)),
        output_(RowsOf(args.output, batch, head)),
        log_sums_(args.log_sums + (batch * shape_.heads + head) * shape_.queries + queries_.begin),
        q_tile_(scratch.Take(counts.rows)),
        kv_tile_(scratch.Take(counts.rows)),
        k_columns_(scratch.Take(counts.columns)),
        scores_(scratch.Take(counts.scores)),
        sum_(scratch.Take(counts.rows)) {}

  static int64_t ScratchElements(const TileCounts<T>& counts) {
    return 3 * counts.rows + counts.columns + counts.scores;
  }

  void Run() {
    const int64_t size = shape_.head_size;
    Begin();
    LoadTile(queries_.size, size, q_.At(queries_.begin), q_.stride, q_tile_);
    // Behind the last key that the piece's last query sees all are unseen, and before the first one
    // of its first query.
    const int64_t seen = std::min(shape_.keys, shape_.offset + queries_.begin + queries_.size);
    const int64_t first = first_keys_.Of(batch_, queries_.begin) / kPiece;
    for (int64_t index = first; index < PieceCount(seen); ++index) {
      const Piece keys = PieceAt(index, shape_.keys);
      LoadTile(keys.size, size, k_.At(keys.begin), k_.stride, kv_tile_);
      TransposeTile(keys.size, size, kv_tile_, k_columns_);
      Product(queries_.size, size, keys.size, q_tile_, k_columns_, false, scores_);
      WeighRows(keys);
      LoadTile(keys.size, size, v_.At(keys.begin), v_.stride, kv_tile_);
      Product(queries_.size, keys.size, size, scores_, kv_tile_, true, sum_);
    }
    End();
  }

 private:
  // What has been merged so far has the weight exp(L - L).
  void Begin() {
    const int64_t stride = TileStride<T>(shape_.head_size);
    if (!args_.merges) {
      std::fill_n(sum_, queries_.size * stride, T{0});
      return;
    }
    LoadTile<T>(queries_.size, shape_.head_size, output_.At(queries_.begin), output_.stride, sum_);
    for (int64_t i = 0; i < queries_.size; ++i) {
      softmax_[i] = {.maximum = log_sums_[i], .sum = 1};
    }
  }

  void WeighRows(const Piece& keys) {
    const T scale = ScaleOf<T>(shape_);
    const int64_t score_stride = TileStride<T>(keys.size);
    const int64_t sum_stride = TileStride<T>(shape_.head_size);
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t i = 0; i < queries_.size; ++i) {
        const Visible visible =
            VisibleOf(shape_, queries_, keys, i, first_keys_.Of(batch_, queries_.begin + i));
        const T factor = Weigh(visible, keys.size, scale, scores_ + i * score_stride, softmax_ + i);
        T* const sum = sum_ + i * sum_stride;
#pragma omp simd
        for (int64_t c = 0; c < shape_.head_size; ++c) {
          sum[c] *= factor;
        }
      }
    });
  }

  void End() {
    const int64_t stride = TileStride<T>(shape_.head_size);
    for (int64_t i = 0; i < queries_.size; ++i) {
      const T factor = static_cast<T>(1 / softmax_[i].sum);
      T* const output = output_.At(queries_.begin + i);
      for (int64_t c = 0; c < shape_.head_size; ++c) {
        output[c] = sum_[i * stride + c] * factor;
      }
      log_sums_[i] =
          static_cast<T>(static_cast<double>(softmax_[i].maximum) + std::log(softmax_[i].sum));
    }
  }

  const SoftmaxAttentionOutputArgs<T>& args_;
  const SoftmaxAttentionShape& shape_;
  const FirstKeys& first_keys_;
  const int64_t batch_;
  const Piece queries_;
  const Rows<const T> q_, k_, v_;
  const Rows<T> output_;
  T* const log_sums_;
  RunningSoftmax<T> softmax_[kPiece];
  T *const q_tile_, *const kv_tile_, *const k_columns_, *const scores_;
  T* const sum_;  // of weighted values
};

// The gradients of one head of keys and values, and of its group's queries.
template <typename T>
class GroupGradients {
 public:
  GroupGradients(const SoftmaxAttentionGradientsArgs<T>& args, const TileCounts<T>& counts,
                 const FirstKeys& first_keys, int64_t batch, int64_t kv_head, Scratch<T>& scratch)
      : args_(args),
        shape_(args.shape),
        first_keys_(first_keys),
        batch_(batch),
        kv_head_(kv_head),
        k_tile_(scratch.Take(counts.rows)),
        kv_columns_(scratch.Take(counts.columns)),
        k_gradient_(scratch.Take(counts.rows)),
        v_gradient_(scratch.Take(counts.rows)),
        q_tile_(scratch.Take(counts.rows)),
        output_gradient_(scratch.Take(counts.rows)),
        part_(scratch.Take(counts.rows)),
        weights_(scratch.Take(counts.scores)),
        score_gradients_(scratch.Take(counts.scores)) {}

  static int64_t ScratchElements(const TileCounts<T>& counts) {
    return 6 * counts.rows + counts.columns + 2 * counts.scores;
  }

  void Run() {
    const int64_t group = shape_.heads / shape_.kv_heads;
    const int64_t first_head = kv_head_ * group;
    if (!args_.adds) {
      for (int64_t head = first_head; head < first_head + group; ++head) {
        const Rows<T> rows = RowsOf(args_.q_gradient, batch_, head);
        for (int64_t token = 0; token < shape_.queries; ++token) {
          std::fill_n(rows.At(token), shape_.head_size, T{0});
        }
      }
    }
    for (int64_t index = 0; index < PieceCount(shape_.keys); ++index) {
      const Piece keys = PieceAt(index, shape_.keys);
      BeginKeys(keys);
      for (int64_t head = first_head; head < first_head + group; ++head) {
        // The first query that sees the first of the keys is in its first piece that matters.
        const int64_t first = std::max<int64_t>(keys.begin - shape_.offset, 0) / kPiece;
        for (int64_t piece = first; piece < PieceCount(shape_.queries); ++piece) {
          const Piece queries = PieceAt(piece, shape_.queries);
          if (first_keys_.Of(batch_, queries.begin) >= keys.begin + keys.size) {
            break;  // nor do later queries see any of them
          }
          AddPair(head, queries, keys);
        }
      }
      const Rows<T> d_k = RowsOf(args_.k_gradient, batch_, kv_head_);
      const Rows<T> d_v = RowsOf(args_.v_gradient, batch_, kv_head_);
      StoreTile(keys.size, shape_.head_size, k_gradient_, args_.adds_to_keys, d_k.At(keys.begin),
                d_k.stride);
      StoreTile(keys.size, shape_.head_size, v_gradient_, args_.adds_to_keys, d_v.At(keys.begin),
                d_v.stride);
    }
  }

 private:
  void BeginKeys(const Piece& keys) {
    const Rows<const T> k = RowsOf(args_.k, batch_, kv_head_);
    LoadTile(keys.size, shape_.head_size, k.At(keys.begin), k.stride, k_tile_);
    const int64_t elements = keys.size * TileStride<T>(shape_.head_size);
    std::fill_n(k_gradient_, elements, T{0});
    std::fill_n(v_gradient_, elements, T{0});
  }

  void AddPair(int64_t head, const Piece& queries, const Piece& keys) {
    const int64_t size = shape_.head_size;
    const Rows<const T> q = RowsOf(args_.q, batch_, head);
    const Rows<const T> d_o = RowsOf(args_.output_gradient, batch_, head);
    const Rows<const T> v = RowsOf(args_.v, batch_, kv_head_);
    const Rows<T> d_q = RowsOf(args_.q_gradient, batch_, head);
    LoadTile(queries.size, size, q.At(queries.begin), q.stride, q_tile_);
    LoadTile(queries.size, size, d_o.At(queries.begin), d_o.stride, output_gradient_);
    TransposeTile(keys.size, size, k_tile_, kv_columns_);
    Product(queries.size, size, keys.size, q_tile_, kv_columns_, false, weights_);
    LoadTile(keys.size, size, v.At(keys.begin), v.stride, part_);
    TransposeTile(keys.size, size, part_, kv_columns_);
    Product(queries.size, size, keys.size, output_gradient_, kv_columns_, false, score_gradients_);
    Differentiate(head, queries, keys);
    TransposedProduct(keys.size, queries.size, size, weights_, output_gradient_, true, v_gradient_);
    TransposedProduct(keys.size, queries.size, size, score_gradients_, q_tile_, true, k_gradient_);
    Product(queries.size, keys.size, size, score_gradients_, k_tile_, false, part_);
    StoreTile(queries.size, size, part_, true, d_q.At(queries.begin), d_q.stride);
  }

  // From q . k to p, and from do . v to ds times the scale that both products with it need.
  void Differentiate(int64_t head, const Piece& queries, const Piece& keys) {
    const T scale = ScaleOf<T>(shape_);
    const int64_t stride = TileStride<T>(keys.size);
    const Rows<const T> output = RowsOf(args_.output, batch_, head);
    const T* const log_sums =
        args_.log_sums + (batch_ * shape_.heads + head) * shape_.queries + queries.begin;
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t i = 0; i < queries.size; ++i) {
        const T mean = Dot(shape_.head_size, output.At(queries.begin + i),
                           output_gradient_ + i * TileStride<T>(shape_.head_size));
        const T log_sum = log_sums[i];
        const Visible visible =
            VisibleOf(shape_, queries, keys, i, first_keys_.Of(batch_, queries.begin + i));
        T* const weights = weights_ + i * stride;
        T* const gradients = score_gradients_ + i * stride;
#pragma omp simd
        for (int64_t j = visible.begin; j < visible.end; ++j) {
          weights[j] = Exp(weights[j] * scale - log_sum);
          gradients[j] = weights[j] * (gradients[j] - mean) * scale;
        }
        for (T* const row : {weights, gradients}) {
          std::fill(row, row + visible.begin, T{0});
          std::fill(row + visible.end, row + keys.size, T{0});
        }
      }
    });
  }

  const SoftmaxAttentionGradientsArgs<T>& args_;
  const SoftmaxAttentionShape& shape_;
  const FirstKeys& first_keys_;
  const int64_t batch_;
  const int64_t kv_head_;
  T *const k_tile_, *const kv_columns_, *const k_gradient_, *const v_gradient_;
  T *const q_tile_, *const output_gradient_, *const part_;
  T *const weights_, *const score_gradients_;
};

}  // namespace

template <typename T>
void SoftmaxAttentionOutput(const SoftmaxAttentionOutputArgs<T>& args) {
  const SoftmaxAttentionShape& shape = args.shape;
  const TileCounts<T> counts(shape.head_size);
  const FirstKeys first_keys(shape, args.documents);
  const int64_t pieces = PieceCount(shape.queries);
  const int64_t cost = kPiece * shape.keys * 16;
  ParallelRanges(shape.batch * shape.heads * pieces, cost, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t pair = index / pieces;
      Scratch<T> scratch(OutputPiece<T>::ScratchElements(counts));
      OutputPiece<T>(args, counts, first_keys, pair / shape.heads, pair % shape.heads,
                     index % pieces, scratch)
          .Run();
    }
  });
}

template <typename T>
void SoftmaxAttentionGradients(const SoftmaxAttentionGradientsArgs<T>& args) {
  const SoftmaxAttentionShape& shape = args.shape;
  const TileCounts<T> counts(shape.head_size);
  const FirstKeys first_keys(shape, args.documents);
  const int64_t cost = shape.queries * shape.keys * 32;
  ParallelRanges(shape.batch * shape.kv_heads, cost, [&](int64_t begin, int64_t end) {
    for (int64_t pair = begin; pair < end; ++pair) {
      Scratch<T> scratch(GroupGradients<T>::ScratchElements(counts));
      GroupGradients<T>(args, counts, first_keys, pair / shape.kv_heads, pair % shape.kv_heads,
                        scratch)
          .Run();
    }
  });
}

#define LASP_INSTANTIATE(T)                                                      \
  template void SoftmaxAttentionOutput<T>(const SoftmaxAttentionOutputArgs<T>&); \
  template void SoftmaxAttentionGradients<T>(const SoftmaxAttentionGradientsArgs<T>&);
LASP_INSTANTIATE(float)
LASP_INSTANTIATE(double)
#undef LASP_INSTANTIATE

}  // namespace lasp::kernels::cpu
