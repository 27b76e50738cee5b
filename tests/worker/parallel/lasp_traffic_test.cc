// What each rank sends for a layer, by method: with LASP one state a direction, whatever the
// length.
#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "proto/rpc/status_macros.h"
#include "tests/worker/parallel/attention_layer.h"
#include "tests/worker/parallel/local_ranks.h"
#include "tests/worker/parallel/sequence_parallel_methods.h"

namespace lasp::worker {
namespace {

constexpr int kRanks = 4;

AttentionShape Shape(int64_t tokens, bool lrpe) {
  return {.batch = 2,
          .tokens = tokens,
          .heads = 4,
          .head_size = 32,
          .lrpe = lrpe,
          .slopes = {},
          .theta = {}};
}

// B H d_k d_v, in fp32; of a normalised layer B H d_k (d_v + 1).
int64_t StateBytes(const AttentionShape& shape) {
  const int64_t columns = shape.head_size + (shape.normalised ? 1 : 0);
  return shape.batch * shape.heads * shape.state_rows() * columns * 4;
}

// What rank `place` of kRanks sends in the forward pass, or in the backward pass.
int64_t ExpectedBytes(lasp::v1::SequenceParallelSpec::Method method, const AttentionShape& shape,
                      int place, bool backward) {
  using Spec = lasp::v1::SequenceParallelSpec;
  // One tensor of a rank's tokens: B C D, in fp32.
  const int64_t slice = shape.batch * shape.tokens * shape.heads * shape.head_size * 4;
  const bool last_of_flow = place == (backward ? 0 : kRanks - 1);
  switch (method) {
    case Spec::METHOD_LASP2:
      return (kRanks - 1) * StateBytes(shape);
    case Spec::METHOD_ULYSSES:
      // q, k, v and o, or their gradients.
      return 4 * slice * (kRanks - 1) / kRanks;
    case Spec::METHOD_RING_ATTENTION: {
      // Its own keys and values and those of all before it, but for the last rank; and backward,
      // the gradients of all before it. The busiest rank sends 2 B N D (P - 1) / P in the forward.
      const int64_t onward = place == kRanks - 1 ? 0 : 2 * slice * (place + 1);
      return onward + (backward ? 2 * slice * place : 0);
    }
    default:
      return last_of_flow ? 0 : StateBytes(shape);
  }
}

class TrafficTest : public ::testing::TestWithParam<SequenceParallelMethod> {};

TEST_P(TrafficTest, ARankSendsExactlyWhatTheMethodsFormulaSays) {
  AttentionShape kinds[] = {Shape(0, false), Shape(0, true), Shape(0, false)};
  kinds[2].normalised = true;
  for (AttentionShape shape : kinds) {
    for (const int64_t tokens : {1, 63, 200}) {
      shape.tokens = tokens;
      ExpectLocalRanks({.sp_size = kRanks}, [&](LocalRank& rank) -> absl::Status {
        const auto attention = GetParam().create(rank.backend, rank.sp);
        LASP_ASSIGN_OR_RETURN(auto layer,
                              AttentionLayer::Create(shape, attention.get(), rank.backend));
        const int place = rank.sp->rank();
        LASP_RETURN_IF_ERROR(layer->Forward());
        LASP_RETURN_IF_ERROR(attention->Finish());
        const int64_t forward = rank.sp->counters().sent_bytes;
        EXPECT_EQ(forward, ExpectedBytes(GetParam().method, shape, place, false)) << tokens;
        LASP_RETURN_IF_ERROR(layer->Backward());
        LASP_RETURN_IF_ERROR(attention->Finish());
        EXPECT_EQ(rank.sp->counters().sent_bytes - forward,
                  ExpectedBytes(GetParam().method, shape, place, true))
            << tokens;
        return absl::OkStatus();
      });
    }
  }
}

// What the kernel has sent over this process's TCP sockets: both ends of every pair of ranks.
int64_t KernelSentBytes() {
  int64_t sent = 0;
  // A socket may have several descriptors.
  std::set<ino_t> seen;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int descriptor = std::stoi(entry.path().filename().string());
    struct stat status = {};
    if (::fstat(descriptor, &status) != 0 || !seen.insert(status.st_ino).second) {
      continue;
    }
    tcp_info info = {};
    socklen_t size = sizeof info;
    if (::getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
        size > offsetof(tcp_info, tcpi_bytes_sent)) {
      sent += static_cast<int64_t>(info.tcpi_bytes_sent);
    }
  }
  return sent;
}

// How many messages all ranks send for a layer, in both passes.
int64_t MessagesALayer(lasp::v1::SequenceParallelSpec::Method method, const AttentionShape& shape) {
  using Spec = lasp::v1::SequenceParallelSpec;
  constexpr int64_t kPairs = int64_t{kRanks} * (kRanks - 1);
  switch (method) {
    case Spec::METHOD_LASP2:
      return 2 * kPairs;
    case Spec::METHOD_ALL_SCAN:
      return shape.batch * shape.heads * 2 * (kRanks - 1);
    case Spec::METHOD_ULYSSES:
      return 2 * kPairs * 4 * shape.batch;
    case Spec::METHOD_RING_ATTENTION:
      return kPairs / 2 * 3;
    default:
      return int64_t{2} * (kRanks - 1);
  }
}

TEST_P(TrafficTest, TheKernelCountsTheSame) {
  // Gloo precedes each message with a header, and announces sends and receives with as many.
  constexpr int64_t kHeaderBytes = 48;
  constexpr int64_t kHeadersAMessage = 3;
  constexpr int kLayers = 20;
  int64_t before = 0;
  int64_t after = 0;
  std::atomic<int64_t> counted{0};
  const AttentionShape shape = Shape(100, true);
  ExpectLocalRanks({.sp_size = kRanks}, [&](LocalRank& rank) -> absl::Status {
    const auto attention = GetParam().create(rank.backend, rank.sp);
    LASP_ASSIGN_OR_RETURN(auto layer, AttentionLayer::Create(shape, attention.get(), rank.backend));
    LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
    if (rank.grid.rank() == 0) {
      before = KernelSentBytes();
    }
    LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
    for (int i = 0; i < kLayers; ++i) {
      LASP_RETURN_IF_ERROR(layer->Forward());
    }
    for (int i = 0; i < kLayers; ++i) {
      LASP_RETURN_IF_ERROR(layer->Backward());
    }
    LASP_RETURN_IF_ERROR(attention->Finish());
    LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
    counted += rank.sp->counters().sent_bytes;
    if (rank.grid.rank() == 0) {
      after = KernelSentBytes();
    }
    return rank.world->Barrier().Wait();
  });
  int64_t expected = 0;
  for (int place = 0; place < kRanks; ++place) {
    expected += kLayers * (ExpectedBytes(GetParam().method, shape, place, false) +
                           ExpectedBytes(GetParam().method, shape, place, true));
  }
  EXPECT_EQ(counted.load(), expected);
  const int64_t messages = kLayers * MessagesALayer(GetParam().method, shape);
  // Three barriers lie between the two readings at most.
  constexpr int64_t kBarrierMessages = int64_t{3} * kRanks * (kRanks - 1);
  const int64_t framing =
      (messages + kBarrierMessages) * kHeadersAMessage * kHeaderBytes + kBarrierMessages * 8;
  EXPECT_GE(after - before, counted.load());
  EXPECT_LE(static_cast<double>(after - before),
            1.02 * static_cast<double>(counted.load()) + static_cast<double>(framing));
}

INSTANTIATE_TEST_SUITE_P(Methods, TrafficTest, ::testing::ValuesIn(SequenceParallelMethods()),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace lasp::worker
