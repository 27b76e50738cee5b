// Jobs on CPUs and on GPUs: which slots they take, whom they wait for, what they keep.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/core/engine_harness.h"

namespace lasp::server {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using Spec = lasp::v1::TrainingSpec;

class SlotKindTest : public ::testing::Test {
 protected:
  std::string Submit(const std::string& id, int sp, Spec::Device device) {
    auto request = EngineHarness::Request(id, sp, 1);
    request.mutable_training_job()->mutable_spec()->set_device(device);
    LASP_EXPECT_OK(harness_.Create(request));
    harness_.Advance(absl::Seconds(2));
    return EngineHarness::Name(id);
  }

  // The kinds of the slots that a job's ranks hold.
  std::vector<lasp::v1::Slot::Kind> KindsOf(const std::string& job) const {
    std::vector<lasp::v1::Slot::Kind> kinds;
    for (const auto& view : harness_.workers->All()) {
      for (const auto& slot : view->worker.slots()) {
        if (slot.training_job() == job) {
          kinds.push_back(slot.kind());
        }
      }
    }
    return kinds;
  }

  void ExpectRunsOn(const std::string& job, lasp::v1::Slot::Kind kind) const {
    EXPECT_EQ(harness_.State(job), Job::STATE_RUNNING) << harness_.Get(job).message();
    EXPECT_THAT(KindsOf(job), Each(kind));
    EXPECT_EQ(harness_.Get(job).placements_size(), static_cast<int>(KindsOf(job).size()));
    EXPECT_EQ(harness_.Get(job).device(),
              kind == lasp::v1::Slot::KIND_GPU ? Spec::DEVICE_GPU : Spec::DEVICE_CPU);
  }

  void ExpectRunsOnGpus(const std::string& job) const {
    ExpectRunsOn(job, lasp::v1::Slot::KIND_GPU);
  }

  void ExpectRunsOnCpus(const std::string& job) const {
    ExpectRunsOn(job, lasp::v1::Slot::KIND_CPU);
  }

  std::string Waits(const std::string& job) const {
    return absl::StrCat(harness_.Get(job).reason(), ": ", harness_.Get(job).message());
  }

  EngineHarness harness_;
};

TEST_F(SlotKindTest, AnyMeansGpusWhereTheClusterHasAsMany) {
  harness_.AddAgent("cpu", 4);
  harness_.AddAgent("gpu", 1, 2);
  ExpectRunsOnGpus(Submit("first", 2, Spec::DEVICE_ANY));
  // Free or not.
  EXPECT_EQ(Waits(Submit("second", 2, Spec::DEVICE_ANY)),
            "WAITING_FOR_SLOTS: needs 2 GPU slots, 0 of 2 free");
  ExpectRunsOnCpus(Submit("wide", 3, Spec::DEVICE_ANY));
  ExpectRunsOnCpus(Submit("narrow", 1, Spec::DEVICE_CPU));
  harness_.ExitAll(EngineHarness::Name("first"), kRankDone);
  ExpectRunsOnGpus(EngineHarness::Name("second"));
  harness_.ExpectSlotsAgree();
}

TEST_F(SlotKindTest, WhoWaitsForOneKindHoldsNobodyOfTheOtherBack) {
  harness_.AddAgent("both", 1, 1);
  ExpectRunsOnGpus(Submit("gpu-1", 1, Spec::DEVICE_GPU));
  const std::string second = Submit("gpu-2", 1, Spec::DEVICE_GPU);
  const std::string third = Submit("gpu-3", 1, Spec::DEVICE_GPU);
  EXPECT_EQ(Waits(second), "WAITING_FOR_SLOTS: needs 1 GPU slot, 0 of 1 free");
  EXPECT_EQ(Waits(third), "WAITING_FOR_TURN: needs 1 GPU slot, 0 of 1 free, 1 job before it");
  const std::string cpu = Submit("cpu-1", 1, Spec::DEVICE_CPU);
  ExpectRunsOnCpus(cpu);
  EXPECT_EQ(Waits(Submit("cpu-2", 1, Spec::DEVICE_CPU)),
            "WAITING_FOR_SLOTS: needs 1 CPU slot, 0 of 1 free");
  harness_.ExitAll(EngineHarness::Name("gpu-1"), kRankDone);
  ExpectRunsOnGpus(second);
  EXPECT_EQ(harness_.State(EngineHarness::Name("cpu-2")), Job::STATE_QUEUED);
  harness_.ExitAll(cpu, kRankDone);
  ExpectRunsOnCpus(EngineHarness::Name("cpu-2"));
  EXPECT_EQ(harness_.State(third), Job::STATE_QUEUED);
}

TEST_F(SlotKindTest, NoJobIsSpreadOverBothKinds) {
  EXPECT_EQ(Waits(Submit("any", 4, Spec::DEVICE_ANY)),
            "NO_WORKERS: needs 4 slots, no worker is ready");
  harness_.AddAgent("both", 3, 2);
  harness_.Advance(absl::Seconds(2));
  EXPECT_EQ(Waits(EngineHarness::Name("any")),
            "NO_CAPACITY: needs 4 slots of one kind, the cluster has 3 CPU and 2 GPU");
  EXPECT_EQ(Waits(Submit("gpu", 3, Spec::DEVICE_GPU)),
            "NO_CAPACITY: needs 3 GPU slots, the cluster has 2");
  EXPECT_EQ(Waits(Submit("cpu", 5, Spec::DEVICE_CPU)),
            "NO_CAPACITY: needs 5 CPU slots, the cluster has 3");
  // Ranks of one job on GPUs of two hosts, beside free CPUs.
  harness_.AddAgent("more", 1, 1);
  ExpectRunsOnGpus(EngineHarness::Name("gpu"));
  ExpectRunsOnCpus(EngineHarness::Name("any"));
}

TEST_F(SlotKindTest, AJobThatWaitsGoesWhereGpusCome) {
  harness_.AddAgent("cpu", 1);
  ExpectRunsOnCpus(Submit("first", 1, Spec::DEVICE_ANY));
  const std::string job = Submit("second", 1, Spec::DEVICE_ANY);
  EXPECT_EQ(Waits(job), "WAITING_FOR_SLOTS: needs 1 CPU slot, 0 of 1 free");
  harness_.AddAgent("gpu", 0, 1);
  ExpectRunsOnGpus(job);
}

TEST_F(SlotKindTest, AnyGoesToCpusWhereTheGpusLeave) {
  harness_.AddAgent("cpu", 1);
  FakeAgent* gpu = harness_.AddAgent("gpu", 0, 1);
  ExpectRunsOnGpus(Submit("first", 1, Spec::DEVICE_ANY));
  const std::string job = Submit("second", 1, Spec::DEVICE_ANY);
  EXPECT_EQ(harness_.State(job), Job::STATE_QUEUED);
  gpu->obeys_stops = false;
  LASP_EXPECT_OK(harness_.Drain("gpu"));
  ExpectRunsOnCpus(job);
}

TEST_F(SlotKindTest, TheKindOfTheFirstGenerationIsKept) {
  FakeAgent* gpu = harness_.AddAgent("gpu", 0, 2);
  harness_.AddAgent("cpu", 2);
  const std::string job = Submit("run", 2, Spec::DEVICE_ANY);
  ExpectRunsOnGpus(job);
  harness_.Disconnect(gpu);
  gpu->ranks.clear();
  harness_.Advance(absl::Seconds(10));
  EXPECT_EQ(harness_.State(job), Job::STATE_RECOVERING);
  EXPECT_THAT(Waits(job),
              ::testing::StartsWith("NO_CAPACITY: needs 2 GPU slots, the cluster has 0"));
  // Nor is it forgotten over a restart.
  harness_.Crash();
  harness_.Connect(harness_.agents.at("cpu").get());
  harness_.Advance(absl::Seconds(40));
  EXPECT_EQ(harness_.State(job), Job::STATE_RECOVERING);
  gpu->incarnation += "+";
  harness_.Connect(gpu);
  harness_.Advance(absl::Seconds(2));
  ExpectRunsOnGpus(job);
  EXPECT_EQ(harness_.Get(job).generation(), 2);
  harness_.ExpectSlotsAgree();
}

TEST_F(SlotKindTest, GpusThatAreExpectedBackAreWaitedFor) {
  FakeAgent* gpu = harness_.AddAgent("gpu", 0, 1);
  FakeAgent* cpu = harness_.AddAgent("cpu", 1);
  const std::string first = Submit("first", 1, Spec::DEVICE_ANY);
  const std::string second = Submit("second", 1, Spec::DEVICE_ANY);
  harness_.Crash();
  harness_.Connect(cpu);
  harness_.Advance(absl::Seconds(5));
  EXPECT_EQ(Waits(second), "WAITING_FOR_SLOTS: needs 1 GPU slot, 0 of 1 free");
  harness_.Connect(gpu);
  ExpectRunsOnGpus(first);
  EXPECT_EQ(harness_.State(second), Job::STATE_QUEUED);
}

TEST_F(SlotKindTest, RecoveringJobsKeepTheirSlotsOfTheirKind) {
  FakeAgent* agent = harness_.AddAgent("both", 1, 1);
  const std::string gpu = Submit("gpu", 1, Spec::DEVICE_GPU);
  const std::string waits = Submit("waits", 1, Spec::DEVICE_GPU);
  for (int i = 0; i < 2; ++i) {
    harness_.Exit(agent, *agent->Find(gpu), kRankRetry);
  }
  // In its backoff.
  ASSERT_EQ(harness_.State(gpu), Job::STATE_RECOVERING);
  EXPECT_EQ(harness_.State(waits), Job::STATE_QUEUED);
  ExpectRunsOnCpus(Submit("cpu", 1, Spec::DEVICE_CPU));
  ExpectRunsOnGpus(gpu);
  EXPECT_EQ(harness_.Get(gpu).generation(), 3);
}

TEST_F(SlotKindTest, RanksOnGpusMayHaveNothingToSayOfTheirAddress) {
  FakeAgent* agent = harness_.AddAgent("gpu", 0, 3);
  agent->names_first_address_only = true;
  const std::string job = Submit("run", 3, Spec::DEVICE_GPU);
  ExpectRunsOnGpus(job);
  std::vector<std::string> addresses;
  for (const auto& message : agent->received) {
    if (message.has_peer_addresses() && message.peer_addresses().fence().rank() == 2) {
      addresses.assign(message.peer_addresses().addresses().begin(),
                       message.peer_addresses().addresses().end());
    }
  }
  EXPECT_THAT(addresses, ElementsAre("gpu:0", "", ""));
}

TEST_F(SlotKindTest, TheSlotsOfAWorkerShowTheirGpus) {
  harness_.AddAgent("both", 1, 2);
  const auto worker = harness_.workers->Find("both")->worker;
  ASSERT_EQ(worker.slots_size(), 3);
  EXPECT_EQ(worker.slot_count(), 3);
  EXPECT_EQ(worker.slots(1).kind(), lasp::v1::Slot::KIND_GPU);
  EXPECT_EQ(worker.slots(1).gpu().uuid(), "GPU-both-1");
  EXPECT_EQ(worker.slots(2).kind(), lasp::v1::Slot::KIND_CPU);
  EXPECT_FALSE(worker.slots(2).has_gpu());
}

// The records in the assignments of a generation, in the order of arrival.
std::vector<std::string> AssignedRecords(const FakeAgent& agent, int64_t generation) {
  std::vector<std::string> records;
  for (const auto& message : agent.received) {
    if (message.has_assignment() && message.assignment().fence().generation() == generation) {
      records.push_back(message.assignment().gemm_record());
    }
  }
  return records;
}

TEST_F(SlotKindTest, LaterGenerationsComputeAsTheFirstOneChose) {
  FakeAgent* agent = harness_.AddAgent("gpu", 0, 2);
  agent->gemm_record = "chosen first";
  const std::string job = Submit("run", 2, Spec::DEVICE_GPU);
  EXPECT_THAT(AssignedRecords(*agent, 1), ElementsAre("", ""));
  agent->gemm_record = "chosen later";
  harness_.Exit(agent, *agent->Find(job, 1), kRankRetry);
  harness_.Advance(absl::Seconds(2));
  ASSERT_EQ(harness_.Get(job).generation(), 2);
  EXPECT_THAT(AssignedRecords(*agent, 2), ElementsAre("chosen first", "chosen first"));
  harness_.Crash();
  harness_.Connect(agent);
  harness_.Exit(agent, *agent->Find(job, 0), kRankRetry);
  harness_.Advance(absl::Seconds(5));
  ASSERT_EQ(harness_.Get(job).generation(), 3);
  EXPECT_THAT(AssignedRecords(*agent, 3), ElementsAre("chosen first", "chosen first"));
  // Each job has its own.
  harness_.ExitAll(job, kRankDone);
  const std::string other = Submit("other", 1, Spec::DEVICE_GPU);
  harness_.Exit(agent, *agent->Find(other), kRankRetry);
  harness_.Advance(absl::Seconds(2));
  EXPECT_EQ(AssignedRecords(*agent, 2).back(), "chosen later");
}

TEST_F(SlotKindTest, ARecordIsRankZerosAndOfBoundedSize) {
  FakeAgent* first = harness_.AddAgent("a", 0, 1);
  FakeAgent* second = harness_.AddAgent("b", 0, 1);
  const auto retry = [&](const std::string& job) {
    FakeAgent* agent = first->Find(job, 0) != nullptr ? first : second;
    harness_.Exit(agent, *agent->Find(job, 0), kRankRetry);
    harness_.Advance(absl::Seconds(5));
  };
  first->gemm_record = "a";
  second->gemm_record = "b";
  const std::string job = Submit("run", 2, Spec::DEVICE_GPU);
  const std::string zero = first->Find(job, 0) != nullptr ? "a" : "b";
  retry(job);
  EXPECT_THAT(AssignedRecords(*first, 2), ElementsAre(zero));
  EXPECT_THAT(AssignedRecords(*second, 2), ElementsAre(zero));
  harness_.ExitAll(job, kRankDone);

  first->received.clear();
  second->received.clear();
  first->gemm_record = second->gemm_record = std::string((64 << 10) + 1, 'x');
  const std::string large = Submit("large", 2, Spec::DEVICE_GPU);
  retry(large);
  EXPECT_THAT(AssignedRecords(*first, 2), ElementsAre(""));
  EXPECT_EQ(harness_.State(large), Job::STATE_RUNNING);
}

}  // namespace
}  // namespace lasp::server
