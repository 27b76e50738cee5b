// What a host and a control group say of memory, of either version of control groups.
#include "worker/checkpoint/free_memory.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/temp_directory.h"

namespace lasp::worker {
namespace {

class FreeMemoryTest : public ::testing::Test {
 protected:
  FreeMemoryTest() {
    for (const char* const folder : {"proc", "cgroup", "cgroup/memory"}) {
      std::filesystem::create_directories(folder_.Join(folder));
    }
    folder_.Write("proc/meminfo",
                  "MemTotal:       16000 kB\nMemFree:  1000 kB\nMemAvailable:    8000 kB\n");
  }

  int64_t Free() const { return FreeMemoryBytes(folder_.Join("proc"), folder_.Join("cgroup")); }

  static constexpr int64_t kHost = int64_t{8000} * 1024;
  lasp::testing::TempDirectory folder_;
};

TEST_F(FreeMemoryTest, AHostWithoutALimitGivesWhatIsAvailable) {
  EXPECT_EQ(Free(), kHost);
  folder_.Write("cgroup/memory.max", "max\n");
  folder_.Write("cgroup/memory.current", "123\n");
  EXPECT_EQ(Free(), kHost);
  std::filesystem::remove(folder_.Join("proc/meminfo"));
  EXPECT_EQ(Free(), 0);
}

// A container that has read a corpus and written checkpoints has used all its memory, most of it
// for pages that it gets back when it asks for memory.
TEST_F(FreeMemoryTest, PagesOfFilesOnDisksAreFree) {
  folder_.Write("cgroup/memory.max", "1000000\n");
  folder_.Write("cgroup/memory.current", "990000\n");
  EXPECT_EQ(Free(), 10'000);
  folder_.Write("cgroup/memory.stat",
                "anon 200000\nfile 700000\nshmem 90000\ninactive_anon 250000\n"
                "active_anon 40000\ninactive_file 400000\nactive_file 210000\n");
  EXPECT_EQ(Free(), 620'000);
  // The files are read one after another.
  folder_.Write("cgroup/memory.current", "500000\n");
  EXPECT_EQ(Free(), 1'000'000);
  folder_.Write("cgroup/memory.current", "2000000\n");
  EXPECT_EQ(Free(), 0);
}

TEST_F(FreeMemoryTest, SoTheyAreInTheFirstVersion) {
  folder_.Write("cgroup/memory/memory.limit_in_bytes", "1000000\n");
  folder_.Write("cgroup/memory/memory.usage_in_bytes", "990000\n");
  EXPECT_EQ(Free(), 10'000);
  // Its own, and with the groups beneath it, as its usage counts.
  folder_.Write("cgroup/memory/memory.stat",
                "inactive_file 1\nactive_file 2\ntotal_inactive_file 400000\n"
                "total_active_file 200000\n");
  EXPECT_EQ(Free(), 610'000);
}

}  // namespace
}  // namespace lasp::worker
