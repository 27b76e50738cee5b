// Moments in bf16: half the memory, the same training, whatever its shape and however often it
// stops.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>

#include "proto/rpc/mutex.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/committed_step.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/local_training.h"

namespace lasp::worker {
namespace {

constexpr char kFolder[] = "default/uid";

class OptimizerStateTest : public ::testing::Test {
 protected:
  OptimizerStateTest() {
    folder_.Write("corpus.txt", MakeText(200'000, 5));
    std::filesystem::create_directories(folder_.Join(kFolder));
  }

  LocalTrainingOptions Options(lasp::v1::OptimizerSpec::StateType type, int sp_size = 1,
                               int dp_size = 1) {
    LocalTrainingOptions options;
    options.spec = SmallSpec("corpus.txt");
    options.spec.mutable_optimizer()->set_state_type(type);
    options.spec.mutable_checkpoint()->set_interval_steps(10);
    options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
    options.spec.mutable_parallelism()->mutable_data_parallel()->set_size(dp_size);
    options.path_roots = {folder_.path()};
    options.on_tensors = [this](int rank, int64_t /*step*/, const Trainer& trainer, Backend&) {
      MutexLock lock(&mutex_);
      optimizer_bytes_[rank] = trainer.memory()[MemoryUse::kOptimizer];
    };
    return options;
  }

  std::vector<LocalTrainingRecord> Train(const LocalTrainingOptions& options) {
    std::vector<LocalTrainingRecord> records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
    }
    return records;
  }

  ::lasp::testing::TempDirectory folder_;

  // A rank's, from the last run.
  int64_t OptimizerBytes(int rank) {
    MutexLock lock(&mutex_);
    return optimizer_bytes_[rank];
  }

 private:
  Mutex mutex_;
  std::map<int, int64_t> optimizer_bytes_ GUARDED_BY(mutex_);
};

using Spec = lasp::v1::OptimizerSpec;

TEST_F(OptimizerStateTest, TrainsLikeFp32InHalfTheMemory) {
  const std::vector<double> wide = Losses(Train(Options(Spec::STATE_TYPE_FP32)));
  const int64_t wide_bytes = OptimizerBytes(0);
  const std::vector<double> narrow = Losses(Train(Options(Spec::STATE_TYPE_BF16)));
  EXPECT_NEAR(static_cast<double>(OptimizerBytes(0)), static_cast<double>(wide_bytes) / 2, 128);
  ASSERT_EQ(narrow.size(), wide.size());
  EXPECT_NE(narrow, wide);
  for (size_t step = 0; step < wide.size(); ++step) {
    EXPECT_NEAR(narrow[step] / wide[step], 1, 5e-3) << "step " << step + 1;
  }
}

// Rounding depends on the element and the update, not on who holds it.
TEST_F(OptimizerStateTest, EveryShapeAndMethodIsTheTrainingOfOneRank) {
  using lasp::v1::DataParallelSpec;
  const std::vector<double> alone = Losses(Train(Options(Spec::STATE_TYPE_BF16)));
  for (const auto method : {DataParallelSpec::METHOD_DDP, DataParallelSpec::METHOD_ZERO1,
                            DataParallelSpec::METHOD_ZERO3}) {
    LocalTrainingOptions options = Options(Spec::STATE_TYPE_BF16, 2, 2);
    options.spec.mutable_parallelism()->mutable_data_parallel()->set_method(method);
    const std::vector<double> losses = Losses(Train(options));
    ASSERT_EQ(losses.size(), alone.size());
    for (size_t step = 0; step < alone.size(); ++step) {
      EXPECT_NEAR(losses[step] / alone[step], 1, 1e-4)
          << DataParallelSpec::Method_Name(method) << " step " << step + 1;
    }
  }
}

TEST_F(OptimizerStateTest, GoesOnFromACheckpointToTheBit) {
  using lasp::v1::DataParallelSpec;
  using lasp::v1::SequenceParallelSpec;

  // MEGATRON_SP gathers matrices cut by columns before it saves them.
  struct Case {
    SequenceParallelSpec::Method sp;
    DataParallelSpec::Method dp;
    int sp_size;
  };

  int64_t generation = 0;
  for (const auto& [sp, dp, sp_size] :
       {Case{SequenceParallelSpec::METHOD_LASP, DataParallelSpec::METHOD_DDP, 1},
        Case{SequenceParallelSpec::METHOD_LASP, DataParallelSpec::METHOD_ZERO2, 1},
        Case{SequenceParallelSpec::METHOD_MEGATRON_SP, DataParallelSpec::METHOD_DDP, 2},
        Case{SequenceParallelSpec::METHOD_MEGATRON_SP, DataParallelSpec::METHOD_ZERO2, 2}}) {
    LocalTrainingOptions options = Options(Spec::STATE_TYPE_BF16, sp_size, 2);
    options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_method(sp);
    options.spec.mutable_parallelism()->mutable_data_parallel()->set_method(dp);
    options.checkpoint_root = folder_.path();
    options.checkpoint_folder = kFolder;
    options.generation = ++generation;
    const auto whole = Train(options);
    options.restore_from = CommitStep(options, whole, 10);
    options.generation = ++generation;
    const auto resumed = Train(options);
    const std::vector<double> losses = Losses(whole);
    EXPECT_EQ(Losses(resumed), (std::vector<double>{losses.begin() + 10, losses.end()}));
    for (size_t rank = 0; rank < whole.size(); ++rank) {
      EXPECT_EQ(resumed[rank].parameters, whole[rank].parameters);
    }
  }
}

// What is left in memory, too, is fp32, and comes back as it was.
TEST_F(OptimizerStateTest, GoesOnFromStateLeftInMemoryToTheBit) {
  LocalTrainingOptions options = Options(Spec::STATE_TYPE_BF16, 1, 2);
  options.spec.set_max_steps(20);
  const std::vector<double> losses = Losses(Train(options));
  options.memory_root = folder_.path();
  options.on_step = [](int, const lasp::internal::v1::RankStep& step, DrainRequest& drain) {
    if (step.step() == 6) {
      drain.Request();
    }
  };
  const auto stopped = Train(options);
  const int64_t last = stopped[0].end.step;
  ASSERT_EQ(last, 7);
  lasp::v1::Rebuild rebuild;
  rebuild.set_generation(options.generation);
  *rebuild.mutable_state() = stopped[0].left.state();
  lasp::v1::RebuildPart& part = *rebuild.add_parts();
  *part.mutable_shard() = stopped[0].left.shard();
  *part.mutable_pieces() = stopped[0].left.pieces();
  options.generation = 2;
  options.rebuild = rebuild;
  options.on_step = {};
  const auto rebuilt = Train(options);
  EXPECT_EQ(Losses(rebuilt), (std::vector<double>{losses.begin() + last, losses.end()}));
}

}  // namespace
}  // namespace lasp::worker
