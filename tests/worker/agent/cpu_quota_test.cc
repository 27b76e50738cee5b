#include "worker/agent/cpu_quota.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/support/temp_directory.h"

namespace lasp::worker {
namespace {

class CpuQuotaTest : public ::testing::Test {
 protected:
  void Group(const std::string& name, const std::string& cpu_max) {
    std::filesystem::create_directories(folder_.Join("groups" + name));
    folder_.Write("groups" + name + "/cpu.max", cpu_max);
  }

  absl::optional<int> Quota(const std::string& self) {
    return CpuQuota(folder_.Write("self", self), folder_.Join("groups"));
  }

  lasp::testing::TempDirectory folder_;
};

TEST_F(CpuQuotaTest, AContainerSeesItsOwnAtTheRoot) {
  Group("", "400000 100000\n");
  EXPECT_EQ(Quota("0::/\n"), 4);
}

TEST_F(CpuQuotaTest, TheLeastOfAllAboveHolds) {
  Group("", "max 100000\n");
  Group("/lasp.slice", "250000 100000\n");
  Group("/lasp.slice/worker.service", "800000 100000\n");
  EXPECT_EQ(Quota("1:name=systemd:/elsewhere\n0::/lasp.slice/worker.service\n"), 2);
}

TEST_F(CpuQuotaTest, HalfACoreIsOneThread) {
  Group("", "50000 100000\n");
  EXPECT_EQ(Quota("0::/\n"), 1);
}

TEST_F(CpuQuotaTest, NothingIsReadFromNothing) {
  EXPECT_EQ(Quota("0::/\n"), absl::nullopt);
  EXPECT_EQ(Quota("4:cpu,cpuacct:/docker\n"), absl::nullopt);
  EXPECT_EQ(Quota(""), absl::nullopt);
  EXPECT_EQ(CpuQuota(folder_.Join("missing"), folder_.Join("missing")), absl::nullopt);
  for (const char* text : {"max 100000\n", "", "100000", "0 100000\n", "-1 100000\n", "x y\n"}) {
    Group("", text);
    EXPECT_EQ(Quota("0::/\n"), absl::nullopt) << text;
  }
}

}  // namespace
}  // namespace lasp::worker
