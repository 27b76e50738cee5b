// What crosses the ring: one state a layer and direction, whatever the length.
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

// B H d_k d_v, in fp32.
int64_t StateBytes(const AttentionShape& shape) {
  return shape.batch * shape.heads * shape.state_rows() * shape.head_size * 4;
}

TEST(LaspTrafficTest, ARankSendsExactlyOneStateALayerWhateverTheLength) {
  for (const bool lrpe : {false, true}) {
    for (const int64_t tokens : {1, 63, 64, 200, 1000}) {
      ExpectLocalRanks({.sp_size = kRanks}, [&](LocalRank& rank) -> absl::Status {
        const AttentionShape shape = Shape(tokens, lrpe);
        const auto lasp = CreateLasp(rank.backend, rank.sp);
        LASP_ASSIGN_OR_RETURN(auto layer, AttentionLayer::Create(shape, lasp.get(), rank.backend));
        const int place = rank.sp->rank();
        LASP_RETURN_IF_ERROR(layer->Forward());
        LASP_RETURN_IF_ERROR(lasp->Finish());
        const int64_t forward = rank.sp->counters().sent_bytes;
        EXPECT_EQ(forward, place == kRanks - 1 ? 0 : StateBytes(shape));
        LASP_RETURN_IF_ERROR(layer->Backward());
        LASP_RETURN_IF_ERROR(lasp->Finish());
        EXPECT_EQ(rank.sp->counters().sent_bytes - forward, place == 0 ? 0 : StateBytes(shape));
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

TEST(LaspTrafficTest, TheKernelCountsTheSame) {
  // Gloo precedes each message with a header, and announces sends and receives with as many.
  constexpr int64_t kHeaderBytes = 48;
  constexpr int64_t kHeadersAMessage = 3;
  constexpr int kLayers = 20;
  int64_t before = 0;
  int64_t after = 0;
  std::atomic<int64_t> counted{0};
  const AttentionShape shape = Shape(100, true);
  ExpectLocalRanks({.sp_size = kRanks}, [&](LocalRank& rank) -> absl::Status {
    const auto lasp = CreateLasp(rank.backend, rank.sp);
    LASP_ASSIGN_OR_RETURN(auto layer, AttentionLayer::Create(shape, lasp.get(), rank.backend));
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
    LASP_RETURN_IF_ERROR(lasp->Finish());
    LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
    counted += rank.sp->counters().sent_bytes;
    if (rank.grid.rank() == 0) {
      after = KernelSentBytes();
    }
    return rank.world->Barrier().Wait();
  });
  constexpr int64_t kMessages = int64_t{2} * kLayers * (kRanks - 1);
  EXPECT_EQ(counted.load(), kMessages * StateBytes(shape));
  // Three barriers lie between the two readings at most.
  constexpr int64_t kBarrierMessages = int64_t{3} * kRanks * (kRanks - 1);
  const int64_t framing =
      (kMessages + kBarrierMessages) * kHeadersAMessage * kHeaderBytes + kBarrierMessages * 8;
  EXPECT_GE(after - before, counted.load());
  EXPECT_LE(static_cast<double>(after - before),
            1.02 * static_cast<double>(counted.load()) + static_cast<double>(framing));
}

}  // namespace
}  // namespace lasp::worker
