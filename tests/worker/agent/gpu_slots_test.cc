// What an agent finds and offers, with a driver's library that describes the host a test asks for.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "proto/rpc/worker_limits.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "worker/agent/gpu_discovery.h"
#include "worker/agent/rank_environment.h"
#include "worker/agent/slots.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::IsOk;
using ::lasp::testing::StatusIs;
using lasp::v1::Slot;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

std::vector<HostGpu> Find(const char* host) {
  setenv("LASP_FAKE_NVML", host, 1);
  absl::StatusOr<std::vector<HostGpu>> gpus = FindGpus(FAKE_NVML);
  EXPECT_THAT(gpus, IsOk());
  return gpus.ok() ? *std::move(gpus) : std::vector<HostGpu>();
}

std::vector<int> IndicesOf(const std::vector<HostGpu>& gpus) {
  std::vector<int> indices;
  indices.reserve(gpus.size());
  for (const HostGpu& gpu : gpus) {
    indices.push_back(gpu.index);
  }
  return indices;
}

TEST(GpuDiscoveryTest, DescribesEachGpu) {
  const std::vector<HostGpu> gpus = Find("gpus=2");
  ASSERT_THAT(IndicesOf(gpus), ElementsAre(0, 1));
  EXPECT_EQ(gpus[1].uuid, "GPU-00000001");
  EXPECT_EQ(gpus[1].name, "NVIDIA H200");
  EXPECT_EQ(gpus[1].pci_bus_id, "00000001:19:00.0");
  EXPECT_EQ(gpus[1].memory_bytes, int64_t{141} << 30);
  EXPECT_THAT(gpus[1].nvlinks, IsEmpty());
}

TEST(GpuDiscoveryTest, CountsLinksBetweenGpus) {
  const std::vector<HostGpu> gpus = Find("gpus=4 links=pairs");
  ASSERT_EQ(gpus.size(), 4U);
  EXPECT_THAT(gpus[0].nvlinks, ElementsAre(Pair(1, 2)));
  EXPECT_THAT(gpus[3].nvlinks, ElementsAre(Pair(2, 2)));
}

TEST(GpuDiscoveryTest, CountsLinksThroughSwitches) {
  for (const char* host : {"gpus=4 links=switch", "gpus=4 links=mute"}) {
    const std::vector<HostGpu> gpus = Find(host);
    ASSERT_EQ(gpus.size(), 4U);
    // As many as the end with fewer has.
    EXPECT_THAT(gpus[0].nvlinks, ElementsAre(Pair(1, 18), Pair(2, 18), Pair(3, 16))) << host;
    EXPECT_THAT(gpus[3].nvlinks, ElementsAre(Pair(0, 16), Pair(1, 16), Pair(2, 16))) << host;
  }
  const std::vector<HostGpu> gpus = Find("gpus=3 links=switch apart=1");
  ASSERT_EQ(gpus.size(), 3U);
  EXPECT_THAT(gpus[0].nvlinks, ElementsAre(Pair(2, 18)));
  EXPECT_THAT(gpus[1].nvlinks, IsEmpty());
}

TEST(GpuDiscoveryTest, LeavesOutWhatRanksCannotUse) {
  EXPECT_THAT(IndicesOf(Find("gpus=4 mig=0 links=switch")), ElementsAre(1, 2, 3));
  EXPECT_THAT(IndicesOf(Find("gpus=4 lost=1")), ElementsAre(0, 2, 3));
  EXPECT_THAT(IndicesOf(Find("gpus=4 old=2")), ElementsAre(0, 1, 3));
  EXPECT_THAT(IndicesOf(Find("gpus=4 denied=3")), ElementsAre(0, 1, 2));
  // No link leads to what is left out.
  EXPECT_THAT(Find("gpus=3 mig=1 links=switch").at(0).nvlinks, ElementsAre(Pair(2, 18)));
  EXPECT_THAT(IndicesOf(Find("gpus=0")), IsEmpty());
}

TEST(GpuDiscoveryTest, ReportsWhatItLeavesOut) {
  setenv("LASP_FAKE_NVML", "gpus=4 lost=1 old=2 denied=3", 1);
  lasp::v1::HostReport report;
  ASSERT_THAT(FindGpus(FAKE_NVML, &report), IsOk());
  EXPECT_EQ(report.gpu_driver_version(), "580.65.06");
  ASSERT_EQ(report.gpu_problems_size(), 2);
  EXPECT_THAT(report.gpu_problems(0), HasSubstr("GPU 1"));
  EXPECT_THAT(report.gpu_problems(1), HasSubstr("GPU 2 (GPU-00000002): its compute capability"));
}

TEST(GpuDiscoveryTest, TellsNoDriverFromABrokenOne) {
  EXPECT_THAT(FindGpus("/nowhere/libnvidia-ml.so.1"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/libnvidia-ml.so.1")));
  ::lasp::testing::TempDirectory folder;
  folder.Write("libnvidia-ml.so.1", "not a library");
  EXPECT_THAT(FindGpus(folder.Join("libnvidia-ml.so.1")),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("cannot load NVML")));
  // A library without its functions.
  EXPECT_THAT(FindGpus("libm.so.6"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("nvmlInit_v2")));
  setenv("LASP_FAKE_NVML", "gpus=2 init=9", 1);
  EXPECT_THAT(FindGpus(FAKE_NVML),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("Driver Not Loaded")));
}

TEST(GpuDiscoveryTest, ShutsTheLibraryDown) {
  Find("gpus=2");
  void* const handle = dlopen(FAKE_NVML, RTLD_NOW | RTLD_NOLOAD);
  ASSERT_NE(handle, nullptr);
  const auto initialized = reinterpret_cast<int (*)()>(dlsym(handle, "FakeNvmlInitialized"));
  ASSERT_NE(initialized, nullptr);
  EXPECT_EQ(initialized(), 0);
  dlclose(handle);
}

class SlotsTest : public ::testing::Test {
 protected:
  // What `--gpus=gpus --cpu_slots=cpu_slots` comes to on a host.
  absl::StatusOr<std::vector<Slot>> Offer(const char* host, const std::string& gpus,
                                          int cpu_slots = 0) {
    setenv("LASP_FAKE_NVML", host, 1);
    options_.gpus = gpus;
    options_.cpu_slots = cpu_slots;
    return OfferSlots(options_);
  }

  // The kinds in order, C and G.
  std::string KindsOf(const absl::StatusOr<std::vector<Slot>>& slots) {
    EXPECT_THAT(slots, IsOk());
    std::string kinds;
    for (size_t i = 0; slots.ok() && i < slots->size(); ++i) {
      const Slot& slot = slots->at(i);
      EXPECT_EQ(slot.index(), static_cast<int>(i));
      EXPECT_EQ(slot.has_gpu(), slot.kind() == Slot::KIND_GPU);
      kinds += slot.kind() == Slot::KIND_GPU ? 'G' : 'C';
    }
    return kinds;
  }

  const std::string one_a_core_ = std::string(static_cast<size_t>(AvailableCores()), 'C');
  // Any program will do.
  SlotOptions options_{.cuda_rank_binary = "/bin/true", .nvml_library = FAKE_NVML};
};

TEST_F(SlotsTest, GpusComeFirstAndReplaceTheCores) {
  EXPECT_EQ(KindsOf(Offer("gpus=3", "all")), "GGG");
  EXPECT_EQ(KindsOf(Offer("gpus=3", "all", 2)), "GGGCC");
  EXPECT_EQ(KindsOf(Offer("gpus=3", "none", 2)), "CC");
  EXPECT_EQ(KindsOf(Offer("gpus=3", "none")), one_a_core_);
  EXPECT_EQ(KindsOf(Offer("gpus=0", "all")), one_a_core_);
  EXPECT_THAT(Offer("gpus=3", "all", kMaxWorkerSlots),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--cpu_slots: 1024 and 3")));
}

TEST_F(SlotsTest, ChosenGpusAreLinkedBySlot) {
  const auto slots = Offer("gpus=4 links=switch", "3,GPU-00000001");
  ASSERT_EQ(KindsOf(slots), "GG");
  EXPECT_EQ(slots->at(0).gpu().uuid(), "GPU-00000003");
  EXPECT_EQ(slots->at(0).gpu().name(), "NVIDIA H200");
  EXPECT_EQ(slots->at(0).gpu().memory_bytes(), int64_t{141} << 30);
  EXPECT_EQ(slots->at(0).gpu().pci_bus_id(), "00000001:1B:00.0");
  ASSERT_EQ(slots->at(0).gpu().links_size(), 1);
  EXPECT_EQ(slots->at(0).gpu().links(0).slot(), 1);
  EXPECT_EQ(slots->at(0).gpu().links(0).nvlink_count(), 16);
  EXPECT_EQ(slots->at(1).gpu().uuid(), "GPU-00000001");
  EXPECT_EQ(slots->at(1).gpu().links(0).slot(), 0);
}

TEST_F(SlotsTest, WhatIsAskedForByNameMustBeThere) {
  for (const char* wanted : {"4", "0,GPU-nowhere", "", "0,", "1,0,1", "0,GPU-00000000", "ALL"}) {
    EXPECT_THAT(Offer("gpus=2", wanted),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--gpus: ")))
        << wanted;
  }
  EXPECT_THAT(Offer("gpus=2", "7"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("'7' to offer; there are: 0 (GPU-00000000), 1 (GPU-00000001)")));
  EXPECT_THAT(Offer("gpus=2 init=9", "0"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("Driver Not Loaded")));
  options_.cuda_rank_binary = "/nowhere/lasp-rank-cuda";
  EXPECT_THAT(Offer("gpus=2", "0"), StatusIs(absl::StatusCode::kFailedPrecondition,
                                             HasSubstr("/nowhere/lasp-rank-cuda")));
  options_.nvml_library = "/nowhere/libnvidia-ml.so.1";
  EXPECT_THAT(Offer("gpus=2", "0"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("no NVIDIA")));
}

TEST_F(SlotsTest, WithoutDriverOrProgramAllIsNone) {
  EXPECT_EQ(KindsOf(Offer("gpus=2 init=9", "all", 1)), "C");
  options_.cuda_rank_binary = "/nowhere/lasp-rank-cuda";
  EXPECT_EQ(KindsOf(Offer("gpus=2", "all", 1)), "C");
  options_.nvml_library = "/nowhere/libnvidia-ml.so.1";
  EXPECT_EQ(KindsOf(Offer("gpus=2", "all")), one_a_core_);
}

}  // namespace
}  // namespace lasp::worker
