// What each rank sends for a layer of softmax attention, by method.
#include "worker/parallel/softmax_parallel.h"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "proto/rpc/status_macros.h"
#include "tests/worker/parallel/local_ranks.h"
#include "worker/device/arena.h"

namespace lasp::worker {
namespace {

constexpr int kRanks = 4;

struct Method {
  std::string name;
  std::function<std::unique_ptr<SoftmaxParallel>(Backend*, Communicator*)> create;
  // Bytes that rank `place` sends, q and kv being those of a rank's queries, and of its keys and
  // values.
  std::function<int64_t(int64_t q, int64_t kv, int place)> forward;
  std::function<int64_t(int64_t q, int64_t kv, int place)> backward;
  // Of how many tokens slices are multiples.
  int64_t multiple = 1;
};

Method Gathered() {
  return {"LASP-2H", CreateGatheredSoftmax,
          [](int64_t, int64_t kv, int) { return (kRanks - 1) * kv; },
          // Once more, and the gradients as sums.
          [](int64_t, int64_t kv, int) { return int64_t{2} * (kRanks - 1) * kv; }};
}

Method Ulysses() {
  // q, k, v and o, or their gradients, but for the rank's own heads.
  const auto sent = [](int64_t q, int64_t kv, int) { return (2 * q + kv) * (kRanks - 1) / kRanks; };
  return {"ULYSSES", CreateUlyssesSoftmax, sent, sent};
}

Method Ring() {
  // Of its slice's halves, numbers 2 place and 2 place + 1 of the sequence's, those that another
  // rank computes, and so as many of what it computes for others. Rank 0 computes 0 and 7, rank 1
  // computes 1 and 6, rank 2 computes 2 and 5, rank 3 computes 3 and 4.
  constexpr std::array<int64_t, kRanks> kMoved = {1, 2, 1, 2};
  const auto moved = [kMoved](int64_t tensor, int place) {
    return kMoved.at(static_cast<size_t>(place)) * tensor / 2;
  };
  // Its own keys and values and those of all but the next rank go on to that.
  const auto around = [](int64_t kv) { return (kRanks - 1) * kv; };
  return {"RING_ATTENTION", CreateRingSoftmax,
          [=](int64_t q, int64_t kv, int place) {
            return moved(q, place) + moved(kv, place) + around(kv) + moved(q, place);
          },
          // The output's gradient; of an earlier rank's block this one's queries see one half, of a
          // later one's both; and what was moved goes back.
          [=](int64_t q, int64_t kv, int place) {
            return moved(q, place) + around(kv) + place * kv / 2 + (kRanks - 1 - place) * kv +
                   moved(q, place) + moved(kv, place);
          },
          /*multiple=*/2};
}

class SoftmaxTrafficTest : public ::testing::TestWithParam<Method> {};

TEST_P(SoftmaxTrafficTest, ARankSendsExactlyWhatTheMethodsFormulaSays) {
  for (const int64_t about : {1, 63, 130}) {
    const int64_t tokens = about + about % GetParam().multiple;
    const AttentionShape shape{.batch = 2,
                               .tokens = tokens,
                               .heads = 8,
                               .head_size = 16,
                               .slopes = {},
                               .theta = {},
                               .kv_heads = 4};
    ExpectLocalRanks({.sp_size = kRanks}, [&](LocalRank& rank) -> absl::Status {
      const auto softmax = GetParam().create(rank.backend, rank.sp);
      SoftmaxInputs inputs;
      SoftmaxInputs gradients;
      Tensor output;
      SoftmaxMemory memory;
      const auto take_memory = [&](Arena& arena) {
        const auto take = [&](int64_t heads) {
          return arena.Take(MemoryUse::kActivations, DType::kFloat32, shape.batch * tokens,
                            heads * shape.head_size);
        };
        inputs = {.q = take(shape.heads), .kv = take(2 * shape.kv_heads)};
        gradients = {.q = take(shape.heads), .kv = take(2 * shape.kv_heads)};
        output = take(shape.heads);
        memory = softmax->TakeMemory(shape, arena);
        softmax->TakeScratch(shape, arena);
      };
      Arena plan;
      take_memory(plan);
      LASP_ASSIGN_OR_RETURN(Arena arena, Arena::Create(*rank.backend, plan.used_bytes()));
      take_memory(arena);
      const int place = rank.sp->rank();
      LASP_RETURN_IF_ERROR(softmax->BeginForward(shape, inputs.kv, memory));
      LASP_RETURN_IF_ERROR(softmax->EndForward(shape, inputs, memory, output));
      LASP_RETURN_IF_ERROR(softmax->Finish());
      const int64_t forward = rank.sp->counters().sent_bytes;
      EXPECT_EQ(forward, GetParam().forward(inputs.q.bytes(), inputs.kv.bytes(), place));
      LASP_RETURN_IF_ERROR(softmax->BeginBackward(shape, inputs.kv, memory));
      // The output is its own gradient.
      LASP_RETURN_IF_ERROR(softmax->EndBackward(shape, inputs, memory, output, output, gradients));
      LASP_RETURN_IF_ERROR(softmax->Finish());
      EXPECT_EQ(rank.sp->counters().sent_bytes - forward,
                GetParam().backward(inputs.q.bytes(), inputs.kv.bytes(), place));
      return absl::OkStatus();
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, SoftmaxTrafficTest,
                         ::testing::Values(Gathered(), Ulysses(), Ring()), [](const auto& tested) {
                           std::string name = tested.param.name;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace lasp::worker
