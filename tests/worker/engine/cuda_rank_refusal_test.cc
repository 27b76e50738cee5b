// lasp-rank-cuda where there is no GPU for it: also where the tests' host has some.
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace lasp::worker
