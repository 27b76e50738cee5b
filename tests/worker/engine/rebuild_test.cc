// A run that goes on from what its ranks left in memory is the run that was not broken off.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "proto/checkpoint/left_state_folder.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/local_training.h"
#include "worker/checkpoint/left_state.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::lasp::testing::TempDirectory;
using ::testing::HasSubstr;

constexpr int64_t kBreak = 7;

class RebuildTest : public ::testing::Test {
 protected:
  RebuildTest() { folder_.Write("corpus.txt", MakeText(200'000, 5)); }

  LocalTrainingOptions Options(int sp_size, int dp_size) {
    LocalTrainingOptions options;
    options.spec = SmallSpec("corpus.txt");
    options.spec.set_global_batch_size(12);
    options.spec.mutable_optimizer()->set_schedule(lasp::v1::OptimizerSpec::SCHEDULE_COSINE);
    options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
    options.spec.mutable_parallelism()->mutable_data_parallel()->set_size(dp_size);
    options.path_roots = {folder_.path()};
    return options;
  }

  // Up to step 7; what each rank left.
  std::vector<LocalTrainingRecord> BreakOff(LocalTrainingOptions options) {
    options.memory_root = memory_.path();
    options.on_step = [](int /*rank*/, const lasp::internal::v1::RankStep& step,
                         DrainRequest& drain) {
      // Noticed in the step after.
      if (step.step() == kBreak - 1) {
        drain.Request();
      }
    };
    const auto records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
      EXPECT_EQ(record.left.state().step(), kBreak);
    }
    return records;
  }

  // From all that is left, whoever left it, read in turn by the ranks of a world.
  static lasp::v1::Rebuild Plan(const std::vector<LocalTrainingRecord>& records, int world_size) {
    lasp::v1::Rebuild rebuild;
    rebuild.set_generation(1);
    *rebuild.mutable_state() = records[0].left.state();
    std::set<int64_t> begins;
    for (const LocalTrainingRecord& record : records) {
      if (begins.insert(record.left.pieces(0).begin()).second) {
        lasp::v1::RebuildPart& part = *rebuild.add_parts();
        part.set_reader(rebuild.parts_size() % world_size);
        *part.mutable_pieces() = record.left.pieces();
        *part.mutable_shard() = record.left.shard();
      }
    }
    return rebuild;
  }

  std::filesystem::path FileOf(const lasp::v1::RebuildPart& part) const {
    return std::filesystem::path(memory_.path()) / LeftStateFolder("uid", 1) / part.shard().file();
  }

  TempDirectory folder_;
  TempDirectory memory_;
};

TEST_F(RebuildTest, EveryShareIsLeftTwiceAndFarApart) {
  constexpr int64_t kElements = int64_t{2} << 30;
  for (int world = 2; world <= 9; ++world) {
    std::map<int64_t, std::vector<int>> holders;
    int64_t covered = 0;
    for (int rank = 0; rank < world; ++rank) {
      const TensorShare share = LeftShareOf(kElements, world, rank);
      if (holders[share.begin].empty()) {
        covered += share.count;
      }
      holders[share.begin].push_back(rank);
    }
    EXPECT_EQ(covered, kElements) << world;
    EXPECT_EQ(holders.size(), static_cast<size_t>(std::max(1, world / 2)));
    for (const auto& [begin, ranks] : holders) {
      ASSERT_GE(ranks.size(), 2u) << world;
      EXPECT_GE(ranks[1] - ranks[0], world / 2) << world;
    }
  }
  // A small one.
  EXPECT_EQ(LeftShareOf(100'000, 8, 5).count, 100'000);
}

TEST_F(RebuildTest, TheSameShapeGoesOnToTheBit) {
  const LocalTrainingOptions options = Options(2, 2);
  const auto whole = TrainLocally(options);
  const auto broken = BreakOff(options);
  LocalTrainingOptions going_on = options;
  going_on.generation = 2;
  going_on.memory_root = memory_.path();
  going_on.rebuild = Plan(broken, 4);
  const auto rebuilt = TrainLocally(going_on);
  for (size_t rank = 0; rank < 4; ++rank) {
    LASP_ASSERT_OK(rebuilt[rank].status);
    EXPECT_EQ(rebuilt[rank].parameters, whole[rank].parameters);
    // They go on with step 8.
    ASSERT_EQ(rebuilt[rank].steps.size(), whole[rank].steps.size() - kBreak);
  }
  for (size_t step = 0; step < rebuilt[0].steps.size(); ++step) {
    const lasp::v1::StepMetrics& a = rebuilt[0].steps[step].metrics();
    const lasp::v1::StepMetrics& b = whole[0].steps[step + kBreak].metrics();
    EXPECT_EQ(a.step(), b.step());
    EXPECT_EQ(a.loss(), b.loss());
    EXPECT_EQ(a.gradient_norm(), b.gradient_norm());
    EXPECT_EQ(a.learning_rate(), b.learning_rate());
    EXPECT_EQ(a.token_count(), b.token_count());
  }
  // What rank 0 alone reports, every rank can tell.
  const lasp::v1::StateLeft& left = broken[3].left;
  ASSERT_EQ(left.recent_steps_size(), kBreak);
  EXPECT_EQ(left.recent_steps(6).loss(), whole[0].steps[6].metrics().loss());
}

// Each replica has all, each of its ranks a part of every block.
TEST_F(RebuildTest, SoItDoesWhereTheRanksOfAReplicaShard) {
  for (const auto method :
       {lasp::v1::DataParallelSpec::METHOD_ZERO1, lasp::v1::DataParallelSpec::METHOD_ZERO3}) {
    LocalTrainingOptions options = Options(2, 2);
    lasp::v1::DataParallelSpec& data_parallel =
        *options.spec.mutable_parallelism()->mutable_data_parallel();
    data_parallel.set_method(method);
    data_parallel.set_shard_group(lasp::v1::DataParallelSpec::SHARD_GROUP_SP);
    const auto whole = TrainLocally(options);
    options.generation = method;
    auto broken = BreakOff(options);
    ASSERT_GT(broken[0].left.pieces_size(), 1);
    // One replica is lost.
    broken.erase(broken.begin(), broken.begin() + 2);
    LocalTrainingOptions going_on = options;
    going_on.generation = 10 + method;
    going_on.memory_root = memory_.path();
    going_on.rebuild = Plan(broken, 4);
    going_on.rebuild->set_generation(method);
    const auto rebuilt = TrainLocally(going_on);
    for (size_t rank = 0; rank < 4; ++rank) {
      LASP_ASSERT_OK(rebuilt[rank].status);
      EXPECT_EQ(rebuilt[rank].parameters, whole[rank].parameters);
    }
    const std::vector<double> losses = Losses(whole);
    EXPECT_EQ(Losses(rebuilt), std::vector<double>(losses.begin() + kBreak, losses.end()));
  }
}

TEST_F(RebuildTest, NobodyElseHasWhatEachOwnsAlone) {
  LocalTrainingOptions options = Options(1, 2);
  options.spec.mutable_parallelism()->mutable_data_parallel()->set_method(
      lasp::v1::DataParallelSpec::METHOD_ZERO2);
  options.memory_root = memory_.path();
  EXPECT_THAT(TrainLocally(options)[0].status,
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("owns its share alone")));
}

TEST_F(RebuildTest, AnotherShapeTakesItUp) {
  const auto whole = TrainLocally(Options(2, 2));
  const auto broken = BreakOff(Options(2, 2));
  LocalTrainingOptions going_on = Options(1, 3);
  going_on.generation = 2;
  going_on.memory_root = memory_.path();
  going_on.rebuild = Plan(broken, 3);
  const auto rebuilt = TrainLocally(going_on);
  LASP_ASSERT_OK(rebuilt[0].status);
  const std::vector<double> losses = Losses(rebuilt);
  ASSERT_EQ(losses.size(), Losses(whole).size() - kBreak);
  for (size_t step = 0; step < losses.size(); ++step) {
    EXPECT_NEAR(losses[step] / Losses(whole)[step + kBreak], 1, 1e-5);
  }
}

// Nothing is left to train, but the checkpoint that the job ends with.
TEST_F(RebuildTest, WhatWasBrokenOffAtTheEndIsStillSaved) {
  LocalTrainingOptions options = Options(2, 1);
  options.spec.set_max_steps(kBreak);
  options.memory_root = memory_.path();
  const auto broken = TrainLocally(options);
  LASP_ASSERT_OK(broken[0].status);
  LocalTrainingOptions going_on = options;
  going_on.generation = 2;
  going_on.rebuild = Plan(broken, 2);
  going_on.checkpoint_root = folder_.path();
  going_on.checkpoint_folder = "uid";
  std::filesystem::create_directories(folder_.Join("uid"));
  const auto rebuilt = TrainLocally(going_on);
  for (const LocalTrainingRecord& record : rebuilt) {
    EXPECT_EQ(record.end.step, kBreak);
    EXPECT_TRUE(record.steps.empty());
    ASSERT_EQ(record.shards.size(), 1u);
    EXPECT_EQ(record.shards[0].step(), kBreak);
  }
  EXPECT_EQ(rebuilt[0].shards[0].state().SerializeAsString(),
            broken[0].left.state().SerializeAsString());
}

// The state of a step comes with its metrics, also where rank 0 had no time to report them.
TEST_F(RebuildTest, AStepWhoseEvaluationFailsIsNotLost) {
  LocalTrainingOptions options = Options(2, 2);
  options.spec.mutable_data()->add_eval_paths("held_out.txt");
  options.spec.set_eval_interval_steps(kBreak);
  const std::string held_out = folder_.Write("held_out.txt", MakeText(20'000, 6));
  const auto whole = TrainLocally(options);
  LASP_ASSERT_OK(whole[0].status);
  ASSERT_TRUE(whole[0].steps[kBreak - 1].metrics().has_eval_loss());
  options.memory_root = memory_.path();
  options.on_phase = [&](int /*rank*/, lasp::v1::RankStatus::Phase phase, DrainRequest& /*drain*/) {
    if (phase == lasp::v1::RankStatus::PHASE_EVALUATING) {
      std::ofstream(held_out, std::ios::app) << "changed";
    }
  };
  for (const LocalTrainingRecord& record : TrainLocally(options)) {
    EXPECT_FALSE(record.status.ok());
    EXPECT_EQ(record.left.state().step(), kBreak);
    ASSERT_EQ(record.left.recent_steps_size(), kBreak);
    const lasp::v1::StepMetrics& last = record.left.recent_steps(kBreak - 1);
    EXPECT_EQ(last.loss(), whole[0].steps[kBreak - 1].metrics().loss());
    EXPECT_FALSE(last.has_eval_loss());
  }
}

TEST_F(RebuildTest, WhatIsNotAsItWasLeftIsTakenUpByNobody) {
  const auto broken = BreakOff(Options(2, 2));
  LocalTrainingOptions going_on = Options(2, 2);
  going_on.generation = 2;
  going_on.memory_root = memory_.path();
  const auto refused = [&](const lasp::v1::Rebuild& rebuild, const std::string& why) {
    going_on.rebuild = rebuild;
    const auto records = TrainLocally(going_on);
    int named = 0;
    for (const LocalTrainingRecord& record : records) {
      EXPECT_THAT(record.status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("uid.gen-")));
      named += record.status.message().find(why) != std::string::npos ? 1 : 0;
    }
    EXPECT_GE(named, 1) << why << ": " << records[0].status;
  };
  const lasp::v1::Rebuild plan = Plan(broken, 4);

  lasp::v1::Rebuild hole = plan;
  hole.mutable_parts()->RemoveLast();
  refused(hole, "the parts have");
  lasp::v1::Rebuild overlap = plan;
  *overlap.add_parts() = plan.parts(0);
  overlap.mutable_parts(1)->mutable_pieces(0)->set_begin(64);
  refused(overlap, "does not fit");
  lasp::v1::Rebuild stranger = plan;
  stranger.mutable_parts(0)->set_reader(4);
  refused(stranger, "does not fit");
  lasp::v1::Rebuild small = plan;
  small.mutable_parts(0)->mutable_shard()->set_size_bytes(12);
  refused(small, "does not fit");
  lasp::v1::Rebuild older = plan;
  older.set_generation(0);
  refused(older, "uid.gen-0");

  {
    std::fstream file(FileOf(plan.parts(0)), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(1000);
    file.put('x');
  }
  refused(plan, "rank-0.state");
  std::filesystem::resize_file(FileOf(plan.parts(0)), 100);
  refused(plan, "rank-0.state");
  std::filesystem::remove(FileOf(plan.parts(0)));
  refused(plan, "rank-0.state");
}

TEST_F(RebuildTest, OneRankHasNobodyToLeaveItTo) {
  LocalTrainingOptions options = Options(1, 1);
  options.memory_root = memory_.path();
  EXPECT_THAT(TrainLocally(options)[0].status,
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no other rank")));
}

}  // namespace
}  // namespace lasp::worker
