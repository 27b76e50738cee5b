// lasp-rank-cuda where there is no GPU for it: also where the tests' host has some.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "proto/rpc/rank_exit_code.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/fake_agent.h"
#include "tests/worker/engine/small_spec.h"

namespace lasp::worker {
namespace {

TEST(CudaRankRefusalTest, ARankWithoutAGpuSpeaksAgainstItsHost) {
  ::lasp::testing::TempDirectory folder;
  folder.Write("corpus.txt", MakeText(20'000, 5));
  FakeAgent agent({.spec = SmallSpec("corpus.txt"), .path_roots = {folder.path()}, .gpus = {""}});
  EXPECT_EQ(agent.WaitForExit(0), kRankSuspectHost);
  const RankRecord record = agent.record(0);
  ASSERT_TRUE(record.finished);
  EXPECT_NE(record.end.status().message().find("GPU"), std::string::npos)
      << record.end.status().message();
  EXPECT_TRUE(record.address.empty());
}

TEST(CudaRankRefusalTest, AModelThatGpusDoNotTakeIsAWrongConfiguration) {
  lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
  spec.mutable_model()->set_hidden_size(40);  // 2 heads of 20
  FakeAgent agent({.spec = spec, .gpus = {""}});
  EXPECT_EQ(agent.WaitForExit(0), kRankWrongConfiguration);
  EXPECT_NE(agent.record(0).end.status().message().find("multiples of 8"), std::string::npos);
}

// Where it was built without cuDNN that is what it says; other jobs get as far as the GPU.
TEST(CudaRankRefusalTest, SoftmaxAttentionNeedsCudnn) {
  ::lasp::testing::TempDirectory folder;
  folder.Write("libcudnn.so.9", "no library");
  ASSERT_EQ(::setenv("LD_LIBRARY_PATH", folder.path().c_str(), /*overwrite=*/1), 0);
  lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
  for (const char* const pattern : {"LN", "L"}) {
    spec.mutable_model()->set_layer_pattern(pattern);
    const bool needs = pattern[1] == 'N';
    spec.mutable_model()->set_kv_heads(needs ? 2 : 0);
    FakeAgent agent({.spec = spec, .gpus = {""}});
    EXPECT_EQ(agent.WaitForExit(0), needs ? kRankWrongConfiguration : kRankSuspectHost);
    EXPECT_EQ(agent.record(0).end.status().message().find("cuDNN") != std::string::npos, needs)
        << agent.record(0).end.status().message();
  }
  ASSERT_EQ(::unsetenv("LD_LIBRARY_PATH"), 0);
}

}  // namespace
}  // namespace lasp::worker
