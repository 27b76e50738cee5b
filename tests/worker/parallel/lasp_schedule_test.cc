// The order in which LASP issues its work: what does not need the neighbour's state must not wait
// for it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/worker/parallel/recording_backend.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {
namespace {

using ::testing::ElementsAre;

// Records what is issued. What is received is complete only when `Deliver` is called, and waiting
// for one that is not is an error at once, as all waits have no time.
class RecordingCommunicator : public Communicator {
 public:
  RecordingCommunicator(int rank, int size, std::vector<std::string>* log)
      : rank_(rank), size_(size), log_(*log) {}

  int rank() const override { return rank_; }

  int size() const override { return size_; }

  Operation Send(Tensor, int peer) override {
    log_.push_back("send to " + std::to_string(peer));
    return {};
  }

  Operation Receive(Tensor, int peer) override {
    log_.push_back("receive from " + std::to_string(peer));
    return Pending();
  }

  Operation Exchange(const std::vector<PeerTransfer>& transfers) override {
    for (const PeerTransfer& transfer : transfers) {
      const std::string peer = std::to_string(transfer.peer);
      log_.push_back("exchange with " + peer);
    }
    return Pending();
  }

  // Its end is that of what was received before it.
  Operation Run(std::function<absl::Status()> work) override {
    log_.emplace_back("run");
    EXPECT_TRUE(work().ok());
    return pending_.empty() ? Operation() : Operation(pending_.back(), absl::ZeroDuration());
  }

  Operation AllReduceSum(Tensor) override { return {}; }

  Operation ReduceScatterSum(Tensor, Tensor) override { return {}; }

  Operation Broadcast(Tensor, int) override { return {}; }

  Operation AllGather(Tensor, Tensor) override {
    log_.emplace_back("all-gather");
    return Pending();
  }

  Operation Barrier() override { return {}; }

  CommunicatorCounters counters() const override { return {}; }

  void Deliver() {
    for (const auto& completion : pending_) {
      completion->Set(absl::OkStatus());
    }
  }

 private:
  Operation Pending() {
    pending_.push_back(std::make_shared<HostCompletion>());
    return Operation(pending_.back(), absl::ZeroDuration());
  }

  const int rank_;
  const int size_;
  std::vector<std::string>& log_;
  std::vector<std::shared_ptr<HostCompletion>> pending_;
};

class LaspScheduleTest : public ::testing::Test {
 protected:
  using Create = std::unique_ptr<SequenceParallel>(Backend*, Communicator*);

  // What rank `rank` of 3 issues. What it receives arrives just after `arrives_with`.
  static std::vector<std::string> Issue(int rank, const std::string& arrives_with, bool backward,
                                        Create* create = CreateLasp) {
    std::vector<std::string> log;
    RecordingCommunicator communicator(rank, 3, &log);
    RecordingBackend backend([&](const std::string& operation) {
      log.push_back(operation);
      if (operation == arrives_with) {
        communicator.Deliver();
      }
    });
    const auto lasp = create(&backend, &communicator);
    const AttentionShape shape{.batch = 1,
                               .tokens = 4,
                               .heads = 2,
                               .head_size = 2,
                               .lrpe = false,
                               .slopes = {},
                               .theta = {}};
    Arena arena;
    const AttentionMemory memory = lasp->TakeMemory(shape, arena);
    lasp->TakeScratch(shape, arena);
    if (backward) {
      LASP_EXPECT_OK(lasp->Backward(shape, {}, memory, {}, {}));
    } else {
      LASP_EXPECT_OK(lasp->BeginForward(shape, {}, memory));
      log.emplace_back("caller");
      float nothing = 0;
      LASP_EXPECT_OK(
          lasp->EndForward(shape, {}, memory, Tensor{&nothing, DType::kFloat32, 4, 4, 4}));
    }
    return log;
  }
};

TEST_F(LaspScheduleTest, TheForwardExchangeRunsUnderTheCallersWorkAndTheIntraChunkProduct) {
  EXPECT_THAT(Issue(0, "BeginOutput", false),
              ElementsAre("LocalState", "run", "StateHop", "send to 1", "caller", "BeginOutput",
                          "EndOutput"));
  EXPECT_THAT(Issue(1, "BeginOutput", false),
              ElementsAre("LocalState", "receive from 0", "run", "StateHop", "send to 2", "caller",
                          "BeginOutput", "EndOutput"));
  EXPECT_THAT(Issue(2, "BeginOutput", false),
              ElementsAre("LocalState", "receive from 1", "caller", "BeginOutput", "EndOutput"));
}

TEST_F(LaspScheduleTest, TheBackwardExchangeMirrorsIt) {
  EXPECT_THAT(Issue(2, "BeginGradients", true),
              ElementsAre("LocalStateGradient", "run", "StateGradientHop", "send to 1",
                          "BeginGradients", "EndGradients"));
  EXPECT_THAT(Issue(1, "BeginGradients", true),
              ElementsAre("LocalStateGradient", "receive from 2", "run", "StateGradientHop",
                          "send to 0", "BeginGradients", "EndGradients"));
  EXPECT_THAT(Issue(0, "BeginGradients", true), ElementsAre("LocalStateGradient", "receive from 1",
                                                            "BeginGradients", "EndGradients"));
}

TEST_F(LaspScheduleTest, TheGatherOfLasp2RunsUnderTheSameWorkAndEveryRankIssuesIt) {
  EXPECT_THAT(Issue(0, "BeginOutput", false, CreateLasp2),
              ElementsAre("LocalState", "all-gather", "run", "caller", "BeginOutput", "EndOutput"));
  EXPECT_THAT(Issue(2, "BeginOutput", false, CreateLasp2),
              ElementsAre("LocalState", "all-gather", "run", "StateHop", "StateHop", "caller",
                          "BeginOutput", "EndOutput"));
  EXPECT_THAT(Issue(1, "BeginGradients", true, CreateLasp2),
              ElementsAre("LocalStateGradient", "all-gather", "run", "StateGradientHop",
                          "BeginGradients", "EndGradients"));
}

TEST_F(LaspScheduleTest, AllScanPassesABlockOnWhileTheNextComes) {
  // Two heads, a block each.
  const auto create = [](Backend* backend, Communicator* sp) {
    return CreateAllScan(backend, sp, 1);
  };
  EXPECT_THAT(Issue(0, "BeginOutput", false, create),
              ElementsAre("LocalState", "run", "StateHop", "exchange with 1", "run", "StateHop",
                          "exchange with 1", "caller", "BeginOutput", "EndOutput"));
  EXPECT_THAT(Issue(1, "BeginOutput", false, create),
              ElementsAre("LocalState", "exchange with 0", "run", "StateHop", "exchange with 2",
                          "exchange with 0", "run", "StateHop", "exchange with 2", "caller",
                          "BeginOutput", "EndOutput"));
  EXPECT_THAT(Issue(0, "BeginGradients", true, create),
              ElementsAre("LocalStateGradient", "exchange with 1", "exchange with 1",
                          "BeginGradients", "EndGradients"));
}

}  // namespace
}  // namespace lasp::worker
