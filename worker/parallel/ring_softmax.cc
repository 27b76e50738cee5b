#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/key_value_ring.h"
#include "worker/parallel/softmax_parallel.h"
#include "worker/parallel/zigzag_exchange.h"

namespace lasp::worker {
namespace {

constexpr int kPlaces = 2;
// Of the exchange: keys and values go ahead of the queries.
constexpr size_t kKeyWay = 0;
constexpr size_t kQueryWay = 1;

// All that is computed on is in the order of the zigzag: half slices by half slices, of which one
// sees the other wholly or not at all, or is the same and sees itself causally.
class RingSoftmax final : public SoftmaxParallel {
 public:
  RingSoftmax(Backend* backend, SoftmaxOps* softmax, Communicator* sp)
      : backend_(*backend),
        softmax_(*softmax),
        sp_(*sp),
        exchange_(backend, sp),
        ring_(backend, sp, RingVisits::kAllRanks) {}

  SoftmaxMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    const auto take = [&](int64_t heads) {
      return arena.Take(MemoryUse::kActivations, backend_.activation_type(),
                        shape.batch * shape.tokens, heads * shape.head_size);
    };
    SoftmaxMemory memory;
    memory.log_sums = arena.Take(MemoryUse::kActivations, backend_.accumulation_type(), kPlaces,
                                 LogSumRoom(HalfOf(shape)));
    memory.moved_q = take(shape.heads);
    memory.moved_kv = take(2 * shape.kv_heads);
    memory.moved_output = take(shape.heads);
    return memory;
  }

  void TakeScratch(const AttentionShape& shape, Arena& arena) override {
    const int64_t rows = shape.batch * shape.tokens;
    const int64_t q_columns = shape.heads * shape.head_size;
    const int64_t kv_columns = 2 * shape.kv_heads * shape.head_size;
    exchange_.TakeScratch(rows, std::max(q_columns, kv_columns), arena);
    ring_.TakeScratch(rows, kv_columns, arena);
    const auto take = [&](int64_t count, int64_t columns) {
      return arena.Take(MemoryUse::kWorkspace, backend_.activation_type(), count, columns);
    };
    output_gradient_ = take(rows, q_columns);
    q_gradient_ = take(rows, q_columns);
    const AttentionShape half = HalfOf(shape);
    scratch_ = take(1, softmax_.ScratchElements(half, {.keys = half.tokens, .merges = true}));
  }

  absl::Status BeginForward(const AttentionShape& shape, Tensor kv,
                            const SoftmaxMemory& memory) override {
    keys_ = exchange_.Scatter(shape.batch, {.slice = kv, .zigzag = memory.moved_kv}, kKeyWay);
    return absl::OkStatus();
  }

  absl::Status EndForward(const AttentionShape& shape, const SoftmaxInputs& inputs,
                          const SoftmaxMemory& memory, Tensor output) override {
    Operation queries =
        exchange_.Scatter(shape.batch, {.slice = inputs.q, .zigzag = memory.moved_q}, kQueryWay);
    LASP_RETURN_IF_ERROR(WaitFor(keys_));
    LASP_RETURN_IF_ERROR(SetOut(memory));
    LASP_RETURN_IF_ERROR(WaitFor(queries));
    const AttentionShape half = HalfOf(shape);
    for (int step = 0; ring_.Sees(step); ++step) {
      LASP_ASSIGN_OR_RETURN(const Tensor kv, BlockOf(memory, step));
      for (const Pair& pair : PairsOf(step)) {
        const Tensor keys = ZigzagExchange::Place(kv, pair.key_place);
        softmax_.Output(half,
                        {.keys = half.tokens,
                         .offset = pair.chunks_between * half.tokens,
                         .first_key = pair.key_chunk * half.tokens,
                         .q = ZigzagExchange::Place(memory.moved_q, pair.query_place),
                         .k = KeysOf(keys),
                         .v = ValuesOf(keys),
                         .merges = pair.chunks_between > 0,
                         .output = ZigzagExchange::Place(memory.moved_output, pair.query_place),
                         .log_sums = LogSumsOf(half, memory, pair.query_place),
                         .scratch = scratch_});
      }
    }
    return exchange_.Gather(shape.batch, {{.slice = output, .zigzag = memory.moved_output}});
  }

  absl::Status BeginBackward(const AttentionShape& /*shape*/, Tensor /*kv*/,
                             const SoftmaxMemory& memory) override {
    return SetOut(memory);
  }

  absl::Status EndBackward(const AttentionShape& shape, const SoftmaxInputs& /*inputs*/,
                           const SoftmaxMemory& memory, Tensor /*output*/, Tensor output_gradient,
                           const SoftmaxInputs& gradients) override {
    Operation scattered = exchange_.Scatter(
        shape.batch, {.slice = output_gradient, .zigzag = output_gradient_}, kQueryWay);
    LASP_RETURN_IF_ERROR(WaitFor(scattered));
    const AttentionShape half = HalfOf(shape);
    for (int step = 0; ring_.Sees(step); ++step) {
      LASP_ASSIGN_OR_RETURN(const Tensor kv, BlockOf(memory, step));
      const Tensor kv_gradient = step == 0 ? ring_.own_gradient() : ring_.VisitorGradient(step);
      std::array<bool, kPlaces> written = {};
      for (const Pair& pair : PairsOf(step)) {
        const auto key_place = static_cast<size_t>(pair.key_place);
        AddGradients(half, memory, pair, kv, written[key_place], kv_gradient);
        written[key_place] = true;
      }
      if (step > 0) {
        LASP_RETURN_IF_ERROR(ring_.SendHome(step, SeenRows(sp_.rank(), Before(step), kv.rows),
                                            SeenRows(Before(-step), sp_.rank(), kv.rows)));
      }
    }
    LASP_RETURN_IF_ERROR(ring_.EndHome());
    return exchange_.Gather(shape.batch, {{.slice = gradients.kv, .zigzag = ring_.own_gradient()},
                                          {.slice = gradients.q, .zigzag = q_gradient_}});
  }

  absl::Status Finish() override { return ring_.Finish(); }

 private:
  // A half of this rank's queries and one of a visitor's keys that it sees.
  struct Pair {
    int query_place = 0;
    int key_place = 0;
    int64_t key_chunk = 0;
    int64_t chunks_between = 0;  // 0: the same, seen causally
  };

  static Tensor KeysOf(Tensor kv) { return kv.Columns(0, kv.columns / 2); }

  static Tensor ValuesOf(Tensor kv) { return kv.Columns(kv.columns / 2, kv.columns / 2); }

  static AttentionShape HalfOf(const AttentionShape& shape) {
    AttentionShape half = shape;
    half.tokens = shape.tokens / kPlaces;
    return half;
  }

  // Of one place, so that the other's begins where GPUs want tensors to.
  static int64_t LogSumRoom(const AttentionShape& half) {
    constexpr int64_t kMultiple = 64;
    return (half.batch * half.heads * half.tokens + kMultiple - 1) / kMultiple * kMultiple;
  }

  static Tensor LogSumsOf(const AttentionShape& half, const SoftmaxMemory& memory, int place) {
    const int64_t rows = half.batch * half.heads;
    return memory.log_sums.Rows(place, 1).Columns(0, rows * half.tokens).Reshape(rows, half.tokens);
  }

  // The rank so many before this one.
  int Before(int step) const { return (sp_.rank() - step + sp_.size()) % sp_.size(); }

  // A query's own half of the keys comes before all others, which are merged with it.
  std::vector<Pair> PairsOf(int step) const {
    std::vector<Pair> pairs;
    const ZigzagChunks& chunks = exchange_.chunks();
    for (const bool same : {true, false}) {
      for (int query_place = 0; query_place < kPlaces; ++query_place) {
        for (int key_place = 0; key_place < kPlaces; ++key_place) {
          const int key_chunk = chunks.At(Before(step), key_place);
          const int between = chunks.At(sp_.rank(), query_place) - key_chunk;
          if (same ? between == 0 : between > 0) {
            pairs.push_back({.query_place = query_place,
                             .key_place = key_place,
                             .key_chunk = key_chunk,
                             .chunks_between = between});
          }
        }
      }
    }
    return pairs;
  }

  // What the queries of a rank see of another one's block: all of it, or the earlier chunk.
  static BlockRows SeenRows(int rank, int block_of, int64_t rows) {
    return rank < block_of ? BlockRows{.begin = 0, .size = rows}
                           : BlockRows{.begin = ZigzagChunks::EarlierPlace(block_of) * rows / 2,
                                       .size = rows / 2};
  }

  void AddGradients(const AttentionShape& half, const SoftmaxMemory& memory, const Pair& pair,
                    Tensor kv, bool adds_to_keys, Tensor kv_gradient) {
    const Tensor keys = ZigzagExchange::Place(kv, pair.key_place);
    const Tensor key_gradients = ZigzagExchange::Place(kv_gradient, pair.key_place);
    softmax_.Gradients(
        half, {.keys = half.tokens,
               .offset = pair.chunks_between * half.tokens,
               .first_key = pair.key_chunk * half.tokens,
               .q = ZigzagExchange::Place(memory.moved_q, pair.query_place),
               .k = KeysOf(keys),
               .v = ValuesOf(keys),
               .output = ZigzagExchange::Place(memory.moved_output, pair.query_place),
               .log_sums = LogSumsOf(half, memory, pair.query_place),
               .output_gradient = ZigzagExchange::Place(output_gradient_, pair.query_place),
               .adds = pair.chunks_between > 0,
               .q_gradient = ZigzagExchange::Place(q_gradient_, pair.query_place),
               .adds_to_keys = adds_to_keys,
               .k_gradient = KeysOf(key_gradients),
               .v_gradient = ValuesOf(key_gradients),
               .scratch = scratch_});
  }

  // The block lies in the memory, where it stays, and in the ring.
  absl::Status SetOut(const SoftmaxMemory& memory) {
    LASP_ASSIGN_OR_RETURN(const Tensor own, ring_.Own());
    backend_.Copy(memory.moved_kv, own);
    ring_.SetOut();
    return absl::OkStatus();
  }

  absl::StatusOr<Tensor> BlockOf(const SoftmaxMemory& memory, int step) {
    return step == 0 ? absl::StatusOr<Tensor>(memory.moved_kv) : ring_.Visitor(step);
  }

  absl::Status WaitFor(Operation& operation) {
    const Phase before = backend_.EnterPhase(Phase::kSpWait);
    absl::Status status = operation.Wait();
    backend_.EnterPhase(before);
    return status;
  }

  Backend& backend_;
  SoftmaxOps& softmax_;
  Communicator& sp_;
  ZigzagExchange exchange_;
  KeyValueRing ring_;
  Tensor output_gradient_;
  Tensor q_gradient_;
  Tensor scratch_;
  Operation keys_;
};

}  // namespace

std::unique_ptr<SoftmaxParallel> CreateRingSoftmax(Backend* backend, Communicator* sp) {
  SoftmaxOps* const softmax = backend->softmax();
  if (softmax == nullptr) {
    return nullptr;
  }
  // One rank has nobody to share with.
  return sp->size() == 1 ? CreateGatheredSoftmax(backend, sp)
                         : std::make_unique<RingSoftmax>(backend, softmax, sp);
}

}  // namespace lasp::worker
