// A run that stops and goes on from a checkpoint is the run that did not stop.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "proto/checkpoint/checkpoint_reader.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/rank_exit_code.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/committed_step.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/local_training.h"
#include "worker/engine/exit_code.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::lasp::testing::TempDirectory;
using ::testing::HasSubstr;

constexpr char kFolder[] = "default/uid";

// What a rank holds: masters, then both moments.
std::vector<float> Values(const Trainer& trainer, Backend& backend) {
  std::vector<float> all;
  for (const Tensor& tensor : trainer.tensors()) {
    std::vector<float> values(static_cast<size_t>(tensor.count()));
    backend.CopyToHost(tensor, values.data());
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

class ResumeTest : public ::testing::Test {
 protected:
  ResumeTest() {
    folder_.Write("corpus.txt", MakeText(200'000, 5));
    std::filesystem::create_directories(root_.Join(kFolder));
  }

  static lasp::v1::TrainingSpec Spec() {
    lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
    spec.set_global_batch_size(12);
    spec.mutable_checkpoint()->set_interval_steps(10);
    return spec;
  }

  LocalTrainingOptions Options(int sp_size, int dp_size,
                               const lasp::v1::TrainingSpec& spec = Spec()) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
    options.spec.mutable_parallelism()->mutable_data_parallel()->set_size(dp_size);
    options.path_roots = {folder_.path()};
    options.checkpoint_root = root_.path();
    options.checkpoint_folder = kFolder;
    return options;
  }

  static std::vector<LocalTrainingRecord> Train(const LocalTrainingOptions& options) {
    std::vector<LocalTrainingRecord> records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
    }
    return records;
  }

  // Where a checkpoint's file lies.
  std::string PathOf(const lasp::v1::CheckpointReference& reference, const std::string& file) {
    return root_.Join(reference.folder() + "/" + file);
  }

  TempDirectory folder_;
  TempDirectory root_;
};

std::vector<double> Tail(const std::vector<double>& values, size_t count) {
  return {values.end() - static_cast<int64_t>(count), values.end()};
}

TEST_F(ResumeTest, TheSameShapeGoesOnToTheBit) {
  for (const auto schedule :
       {lasp::v1::OptimizerSpec::SCHEDULE_COSINE, lasp::v1::OptimizerSpec::SCHEDULE_WSD}) {
    lasp::v1::TrainingSpec spec = Spec();
    spec.mutable_optimizer()->set_schedule(schedule);
    spec.mutable_model()->set_lrpe_theta(lasp::v1::ModelSpec::LRPE_THETA_LEARNED);
    LocalTrainingOptions options = Options(2, 2, spec);
    options.generation = schedule;
    // Steps 5 and 6 are skipped.
    std::map<int, float> kept;
    Mutex mutex;
    options.on_tensors = [&](int rank, int64_t step, const Trainer& trainer, Backend& backend) {
      const Tensor first = trainer.parameters().Columns(0, 1);
      MutexLock lock(&mutex);
      if (step == 4) {
        backend.CopyToHost(first, &kept[rank]);
        const float infinite = std::numeric_limits<float>::infinity();
        backend.CopyFromHost(&infinite, first);
      } else if (step == 6) {
        backend.CopyFromHost(&kept[rank], first);
      }
    };
    const auto whole = Train(options);
    const auto reference = CommitStep(options, whole, 10);
    ASSERT_TRUE(whole[0].steps[5].metrics().skipped());
    ASSERT_EQ(whole[0].steps[9].skipped_steps_total(), 2);

    options.restore_from = reference;
    options.generation = 10 + schedule;
    options.on_tensors = {};
    const auto resumed = Train(options);
    ASSERT_EQ(resumed[0].steps.size(), 10u);
    EXPECT_EQ(Losses(resumed), Tail(Losses(whole), 10));
    EXPECT_EQ(GradientNorms(resumed), Tail(GradientNorms(whole), 10));
    for (size_t rank = 0; rank < 4; ++rank) {
      EXPECT_EQ(resumed[rank].parameters, whole[rank].parameters);
    }
    const lasp::v1::StepMetrics& before = whole[0].steps[10].metrics();
    const lasp::v1::StepMetrics& after = resumed[0].steps[0].metrics();
    EXPECT_EQ(after.step(), 11);
    EXPECT_EQ(after.token_count(), before.token_count());
    EXPECT_EQ(after.learning_rate(), before.learning_rate());
    // Totals of a rank count from its beginning.
    EXPECT_EQ(resumed[1].steps[0].tokens_total(), whole[1].steps[0].tokens_total());
    EXPECT_EQ(resumed[1].steps[0].skipped_steps_total(), 0);
    const lasp::v1::TrainingState& state = resumed[0].shards.back().state();
    EXPECT_EQ(state.step(), 20);
    EXPECT_EQ(state.update_count(), 18);
    EXPECT_EQ(state.skipped_count(), 2);
    EXPECT_EQ(state.sequence_count(), 20 * 12);
  }
}

TEST_F(ResumeTest, AnyShapeGoesOnFromWhatAnotherWrote) {
  const LocalTrainingOptions options = Options(2, 2);
  std::vector<float> saved;
  LocalTrainingOptions saving = options;
  saving.on_tensors = [&saved](int rank, int64_t step, const Trainer& trainer, Backend& backend) {
    if (rank == 0 && step == 10) {
      saved = Values(trainer, backend);
    }
  };
  const auto whole = Train(saving);
  const auto reference = CommitStep(saving, whole, 10);
  int64_t generation = 2;
  const std::vector<std::pair<int, int>> shapes = {{1, 1}, {4, 1}, {1, 3}, {2, 3}, {3, 2}};
  for (const auto& [sp_size, dp_size] : shapes) {
    SCOPED_TRACE(absl::StrCat("SP ", sp_size, " DP ", dp_size));
    LocalTrainingOptions resuming = Options(sp_size, dp_size);
    resuming.restore_from = reference;
    resuming.generation = generation++;
    std::vector<std::vector<float>> restored(static_cast<size_t>(sp_size * dp_size));
    resuming.on_tensors = [&restored](int rank, int64_t step, const Trainer& trainer,
                                      Backend& backend) {
      if (step == 10) {
        restored[static_cast<size_t>(rank)] = Values(trainer, backend);
      }
    };
    const auto resumed = Train(resuming);
    for (const std::vector<float>& values : restored) {
      EXPECT_EQ(values, saved);
    }
    const std::vector<double> losses = Losses(resumed);
    ASSERT_EQ(losses.size(), 10u);
    for (size_t step = 0; step < losses.size(); ++step) {
      EXPECT_NEAR(losses[step] / Losses(whole)[10 + step], 1, 1e-5) << step + 11;
    }
  }
}

TEST_F(ResumeTest, ADrainLeavesACheckpointOfItsStep) {
  const auto whole = Train(Options(2, 1));
  std::mt19937 random(7);  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same steps every time
  for (int round = 0; round < 3; ++round) {
    const int64_t asked_at = std::uniform_int_distribution<int64_t>(1, 17)(random);
    SCOPED_TRACE(absl::StrCat("drain asked after step ", asked_at));
    LocalTrainingOptions options = Options(2, 1);
    options.generation = 2 + 2 * round;
    options.on_step = [asked_at](int rank, const lasp::internal::v1::RankStep& step,
                                 DrainRequest& drain) {
      if (rank == 1 && step.step() == asked_at) {
        drain.Request();
      }
    };
    const auto drained = Train(options);
    ASSERT_TRUE(drained[0].end.drained);
    const int64_t step = drained[0].end.step;
    EXPECT_EQ(step, asked_at + 1);
    LocalTrainingOptions resuming = Options(2, 1);
    resuming.generation = options.generation + 1;
    resuming.restore_from = CommitStep(options, drained, step);
    const auto resumed = Train(resuming);
    EXPECT_EQ(Losses(resumed), Tail(Losses(whole), static_cast<size_t>(20 - step)));
    EXPECT_EQ(resumed[1].parameters, whole[1].parameters);
  }
}

TEST_F(ResumeTest, ADrainDuringAnEvaluationSavesToo) {
  folder_.Write("held_out.txt", MakeText(5'000, 6));
  int64_t generation = 1;
  // Of a step that has no checkpoint yet, and of one that has.
  for (const int64_t interval : {100, 5}) {
    lasp::v1::TrainingSpec spec = Spec();
    spec.mutable_data()->add_eval_paths("held_out.txt");
    spec.set_eval_interval_steps(5);
    spec.mutable_checkpoint()->set_interval_steps(interval);
    LocalTrainingOptions options = Options(2, 1, spec);
    options.generation = generation++;
    options.on_phase = [](int rank, lasp::v1::RankStatus::Phase phase, DrainRequest& drain) {
      if (rank == 1 && phase == lasp::v1::RankStatus::PHASE_EVALUATING) {
        drain.Request();
      }
    };
    const auto records = Train(options);
    for (const LocalTrainingRecord& record : records) {
      EXPECT_TRUE(record.end.drained);
      EXPECT_EQ(record.end.step, 5);
      EXPECT_FALSE(record.steps.back().metrics().has_eval_loss());
      EXPECT_EQ(record.shards.size(), 1u);
    }
    CommitStep(options, records, 5);
  }
}

TEST_F(ResumeTest, AStepHasOneCheckpoint) {
  // Due by its number, by a drain, and at the end: steps 10 and 20 only, each once.
  LocalTrainingOptions options = Options(1, 2);
  options.on_step = [](int, const lasp::internal::v1::RankStep& step, DrainRequest& drain) {
    if (step.step() == 9) {
      drain.Request();
    }
  };
  const auto drained = Train(options);
  options.on_step = {};
  options.restore_from = CommitStep(options, drained, 10);
  options.generation = 2;
  const auto resumed = Train(options);
  for (int rank = 0; rank < 2; ++rank) {
    ASSERT_EQ(drained[rank].shards.size(), 1u);
    ASSERT_EQ(resumed[rank].shards.size(), 1u);
    EXPECT_EQ(resumed[rank].shards[0].step(), 20);
    EXPECT_EQ(resumed[rank].checkpoint_totals.written(), 1);
    EXPECT_EQ(resumed[rank].checkpoint_totals.bytes(),
              resumed[rank].shards[0].shard().size_bytes());
    EXPECT_GT(resumed[rank].checkpoint_totals.write_seconds(), 0);
  }
  // From its end nothing is left to do, nor to write.
  options.restore_from = CommitStep(options, resumed, 20);
  options.generation = 3;
  const auto nothing = Train(options);
  EXPECT_EQ(nothing[0].end.step, 20);
  EXPECT_TRUE(nothing[0].steps.empty());
  EXPECT_TRUE(nothing[0].shards.empty());
  EXPECT_EQ(nothing[0].parameters, resumed[0].parameters);
}

TEST_F(ResumeTest, AllLeaveOutWhatOneIsTooBusyFor) {
  lasp::v1::TrainingSpec spec = Spec();
  spec.mutable_checkpoint()->set_interval_steps(1);
  LocalTrainingOptions options = Options(3, 1, spec);
  Mutex mutex;
  CondVar changed;
  bool released = false;
  options.on_shard = [&](const lasp::v1::ShardWritten& shard) {
    MutexLock lock(&mutex);
    while (shard.fence().rank() == 1 && !released) {
      ASSERT_FALSE(changed.WaitWithTimeout(&mutex, absl::Seconds(60)));
    }
  };
  options.on_step = [&](int rank, const lasp::internal::v1::RankStep& step, DrainRequest&) {
    MutexLock lock(&mutex);
    released |= rank == 1 && step.step() == 5;
    changed.NotifyAll();
  };
  const auto records = Train(options);
  std::vector<int64_t> steps;
  for (const lasp::v1::ShardWritten& shard : records[0].shards) {
    steps.push_back(shard.step());
    EXPECT_TRUE(shard.step() == 1 || shard.step() > 5) << shard.step();
  }
  EXPECT_EQ(steps.front(), 1);
  EXPECT_EQ(steps.back(), 20);
  for (const LocalTrainingRecord& record : records) {
    ASSERT_EQ(record.shards.size(), steps.size());
    for (size_t i = 0; i < steps.size(); ++i) {
      EXPECT_EQ(record.shards[i].step(), steps[i]);
    }
  }
  for (const int64_t step : steps) {
    CommitStep(options, records, step);
  }
}

TEST_F(ResumeTest, AFullDiskFailsTheCheckpointAndNotTheTraining) {
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small = {.rlim_cur = 10'000, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto records = TrainLocally(Options(2, 1));
  setrlimit(RLIMIT_FSIZE, &before);
  for (const LocalTrainingRecord& record : records) {
    LASP_EXPECT_OK(record.status);
    EXPECT_EQ(record.steps.size(), 20u);
    ASSERT_EQ(record.shards.size(), 2u);
    for (const lasp::v1::ShardWritten& shard : record.shards) {
      EXPECT_THAT(std::string(shard.status().message()), HasSubstr("File too large"));
      EXPECT_THAT(std::string(shard.status().message()), HasSubstr("rank-"));
    }
    EXPECT_EQ(record.checkpoint_totals.failed(), 2);
    EXPECT_EQ(record.checkpoint_totals.bytes(), 0);
  }
  // Nothing is left of them.
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root_.path())) {
    EXPECT_TRUE(entry.is_directory()) << entry.path();
  }
}

TEST_F(ResumeTest, ADamagedCheckpointIsNamedAndNobodyHangs) {
  const LocalTrainingOptions options = Options(2, 1);
  const auto records = Train(options);
  const auto intact = CommitStep(options, records, 10);
  const auto resume = [&](const lasp::v1::CheckpointReference& reference,
                          const lasp::v1::TrainingSpec& spec = Spec()) {
    LocalTrainingOptions resuming = Options(2, 1, spec);
    resuming.restore_from = reference;
    resuming.generation = 2;
    return TrainLocally(resuming);
  };
  const auto change = [&](const std::string& file, const std::function<void(std::string*)>& edit) {
    std::ifstream in(PathOf(intact, file), std::ios::binary);
    const std::string content(std::istreambuf_iterator<char>(in), {});
    std::string changed = content;
    edit(&changed);
    std::ofstream(PathOf(intact, file), std::ios::binary) << changed;
    const auto damaged = resume(intact);
    std::ofstream(PathOf(intact, file), std::ios::binary) << content;
    return damaged;
  };
  const auto expect_corrupt = [](const std::vector<LocalTrainingRecord>& ranks,
                                 const std::string& file) {
    int corrupt = 0;
    for (const LocalTrainingRecord& record : ranks) {
      EXPECT_TRUE(record.steps.empty());
      EXPECT_EQ(ExitCodeOf(record.status), kRankRetry);
      if (absl::IsDataLoss(record.status)) {
        ++corrupt;
        EXPECT_EQ(ErrorReason(record.status), kCheckpointCorrupt);
        EXPECT_THAT(std::string(record.status.message()), HasSubstr(file));
      } else {
        EXPECT_THAT(record.status,
                    StatusIs(absl::StatusCode::kUnavailable, HasSubstr("could not restore")));
      }
    }
    EXPECT_GT(corrupt, 0);
  };
  for (const std::string file : {"rank-0.safetensors", "rank-1.safetensors"}) {
    expect_corrupt(change(file, [](std::string* text) { (*text)[text->size() / 2] ^= 1; }), file);
    expect_corrupt(change(file, [](std::string* text) { text->pop_back(); }), file);
    expect_corrupt(change(file, [](std::string* text) { text->clear(); }), file);
  }
  expect_corrupt(change("manifest.json", [](std::string* text) { text->resize(text->size() / 2); }),
                 "manifest");
  std::filesystem::rename(PathOf(intact, "rank-1.safetensors"), root_.Join("away"));
  expect_corrupt(resume(intact), "rank-1.safetensors");
  std::filesystem::create_symlink(root_.Join("away"), PathOf(intact, "rank-1.safetensors"));
  expect_corrupt(resume(intact), "rank-1.safetensors");
  std::filesystem::remove(PathOf(intact, "rank-1.safetensors"));
  std::filesystem::rename(root_.Join("away"), PathOf(intact, "rank-1.safetensors"));

  lasp::v1::CheckpointReference gone = intact;
  gone.set_folder(absl::StrCat(kFolder, "/step-5.gen-1"));
  expect_corrupt(resume(gone), "step-5.gen-1");
  // A file system that is not there says nothing of the checkpoint.
  gone.set_folder("default/other/step-10.gen-1");
  for (const LocalTrainingRecord& record : resume(gone)) {
    EXPECT_THAT(record.status,
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("--checkpoint_root")));
    EXPECT_EQ(ErrorReason(record.status), kCheckpointUnreadable);
  }
  gone.set_folder("default/uid/../uid/step-10.gen-1");
  EXPECT_THAT(resume(gone)[0].status,
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("..")));

  lasp::v1::TrainingSpec other = Spec();
  other.mutable_model()->set_glu_size(64);
  for (const LocalTrainingRecord& record : resume(intact, other)) {
    EXPECT_THAT(record.status,
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("model.layers.0.channel_mixer.l1.weight is F32 [48, 32], not "
                                   "F32 [64, 32]")));
  }
  other = Spec();
  other.set_seed(2);
  EXPECT_THAT(resume(intact, other)[1].status,
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another spec")));
  LASP_EXPECT_OK(resume(intact)[0].status);
}

}  // namespace
}  // namespace lasp::worker
