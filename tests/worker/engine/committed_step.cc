#include "tests/worker/engine/committed_step.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>

#include "tests/support/status_matchers.h"
#include "tests/worker/checkpoint/commit.h"

namespace lasp::worker {

lasp::v1::CheckpointReference CommitStep(const LocalTrainingOptions& options,
                                         const std::vector<LocalTrainingRecord>& records,
                                         int64_t step) {
  std::vector<lasp::v1::ShardWritten> shards;
  for (const LocalTrainingRecord& record : records) {
    std::copy_if(record.shards.begin(), record.shards.end(), std::back_inserter(shards),
                 [step](const lasp::v1::ShardWritten& shard) { return shard.step() == step; });
  }
  EXPECT_EQ(shards.size(), records.size());
  const auto reference =
      CommitCheckpoint(options.checkpoint_root, options.checkpoint_folder, options.spec, shards);
  LASP_EXPECT_OK(reference);
  return reference.ok() ? *reference : lasp::v1::CheckpointReference();
}

}  // namespace lasp::worker
