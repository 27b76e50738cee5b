// Every data-parallel method is the training of one rank: its losses, its gradients and what it
// saves; and holds and sends what it says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>

#include "absl/strings/str_cat.h"
#include "proto/rpc/mutex.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/committed_step.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/dump_reader.h"
#include "tests/worker/engine/local_training.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::TempDirectory;
using ::lasp::v1::DataParallelSpec;

constexpr char kFolder[] = "default/uid";
constexpr DataParallelSpec::Method kMethods[] = {
    DataParallelSpec::METHOD_LEGACY_DDP, DataParallelSpec::METHOD_DDP,
    DataParallelSpec::METHOD_ZERO1,      DataParallelSpec::METHOD_ZERO2,
    DataParallelSpec::METHOD_ZERO3,      DataParallelSpec::METHOD_FSDP};

constexpr DataParallelSpec::Method kZeros[] = {
    DataParallelSpec::METHOD_ZERO1, DataParallelSpec::METHOD_ZERO2, DataParallelSpec::METHOD_ZERO3};

struct Shape {
  int sp = 1;
  int dp = 1;
};

class DataParallelTest : public ::testing::Test {
 protected:
  DataParallelTest() {
    folder_.Write("corpus.txt", MakeText(100'000, 5));
    std::filesystem::create_directories(root_.Join(kFolder));
  }

  // Three blocks, so that two take turns in one place; nothing divides by the ranks, or by 64.
  static lasp::v1::TrainingSpec Spec(DataParallelSpec::Method method, Shape shape) {
    lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
    lasp::v1::ModelSpec& model = *spec.mutable_model();
    model.set_layers(3);
    model.set_hidden_size(30);
    model.set_glu_size(41);
    model.set_vocab_size(257);
    model.set_tie_embeddings(false);
    model.set_lrpe_theta(lasp::v1::ModelSpec::LRPE_THETA_LEARNED);
    spec.mutable_data()->set_sequence_length(48);
    spec.set_global_batch_size(12);
    spec.set_max_steps(10);
    spec.mutable_optimizer()->set_warmup_steps(2);
    spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(shape.sp);
    spec.mutable_parallelism()->mutable_data_parallel()->set_size(shape.dp);
    spec.mutable_parallelism()->mutable_data_parallel()->set_method(method);
    return spec;
  }

  LocalTrainingOptions Options(const lasp::v1::TrainingSpec& spec) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    return options;
  }

  static std::vector<LocalTrainingRecord> Train(const LocalTrainingOptions& options) {
    std::vector<LocalTrainingRecord> records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
    }
    return records;
  }

  // The losses, and the folder of what is dumped of the first step.
  using Run = std::pair<std::vector<double>, std::string>;

  Run Measure(const lasp::v1::TrainingSpec& spec, DType type) {
    LocalTrainingOptions options = Options(spec);
    options.create_backend = [type] { return CreateCpuBackend(type, 1); };
    options.dump_directory = folder_.Join(absl::StrCat("dump-", dumps_++));
    return Run(Losses(Train(options)), options.dump_directory);
  }

  // Whatever the method and the shape that it is compared with.
  const Run& OneRank(lasp::v1::TrainingSpec spec, DType type) {
    auto& parallelism = *spec.mutable_parallelism();
    parallelism.mutable_sequence_parallel()->set_size(1);
    parallelism.mutable_data_parallel()->set_size(1);
    parallelism.mutable_data_parallel()->set_method(DataParallelSpec::METHOD_DDP);
    parallelism.mutable_data_parallel()->clear_shard_group();
    const auto key = std::pair(spec.SerializeAsString(), type);
    auto known = one_rank_.find(key);
    if (known == one_rank_.end()) {
      known = one_rank_.emplace(key, Measure(spec, type)).first;
    }
    return known->second;
  }

  // The same job on one rank and on `shape`: `tolerance` of each loss and each gradient tensor.
  void ExpectAsOneRank(lasp::v1::TrainingSpec spec, Shape shape, DType type, double tolerance) {
    auto& parallelism = *spec.mutable_parallelism();
    parallelism.mutable_sequence_parallel()->set_size(shape.sp);
    parallelism.mutable_data_parallel()->set_size(shape.dp);
    SCOPED_TRACE(absl::StrCat(DataParallelSpec::Method_Name(parallelism.data_parallel().method()),
                              " SP ", shape.sp, " DP ", shape.dp, " micro-batch ",
                              spec.micro_batch_size(),
                              spec.model().tie_embeddings() ? " tied" : ""));
    const auto& [expected, expected_dump] = OneRank(spec, type);
    const auto [losses, dump] = Measure(spec, type);
    ASSERT_EQ(losses.size(), expected.size());
    for (size_t step = 0; step < losses.size(); ++step) {
      EXPECT_NEAR(losses[step] / expected[step], 1, tolerance) << "step " << step + 1;
    }
    const auto want = ReadDump(expected_dump + "/rank-0");
    for (int rank = 0; rank < shape.sp * shape.dp; ++rank) {
      const auto got = ReadDump(absl::StrCat(dump, "/rank-", rank));
      for (const auto& [name, values] : want) {
        if (name.rfind("gradient/", 0) == 0) {
          EXPECT_LE(RelativeRms(got.at(name), values), tolerance) << name << " rank " << rank;
        } else if (name.rfind("parameter/", 0) == 0) {
          EXPECT_EQ(got.at(name), values) << name << " rank " << rank;
        }
      }
    }
  }

  // What all ranks have together after `step`: masters and both moments.
  std::function<void(int, int64_t, const Trainer&, Backend&)> Assemble(
      int64_t wanted, std::vector<std::vector<float>>* all) {
    return [this, wanted, all](int rank, int64_t step, const Trainer& trainer, Backend& backend) {
      if (step != wanted) {
        return;
      }
      MutexLock lock(&mutex_);
      all->resize(trainer.tensors().size());
      for (size_t part = 0; part < all->size(); ++part) {
        const std::vector<float> own = OwnedValues(trainer, trainer.tensors()[part], backend);
        std::vector<float>& sum = (*all)[part];
        if (!trainer.owned_shares().has_value() && rank > 0) {
          continue;
        }
        sum.resize(own.size());
        for (size_t i = 0; i < own.size(); ++i) {
          sum[i] += own[i];
        }
      }
    };
  }

  LocalTrainingOptions SavingOptions(DataParallelSpec::Method method, Shape shape) {
    lasp::v1::TrainingSpec spec = Spec(method, shape);
    spec.mutable_checkpoint()->set_interval_steps(4);
    LocalTrainingOptions options = Options(spec);
    options.checkpoint_root = root_.path();
    options.checkpoint_folder = kFolder;
    options.generation = generation_++;
    return options;
  }

  TempDirectory folder_;
  TempDirectory root_;
  int dumps_ = 0;
  std::map<std::pair<std::string, DType>, Run> one_rank_;
  int64_t generation_ = 1;
  Mutex mutex_;
};

TEST_F(DataParallelTest, EveryMethodTrainsAsOneRankDoes) {
  // Micro-batches are accumulated throughout; three ranks divide nothing evenly.
  for (const auto method : kMethods) {
    ExpectAsOneRank(Spec(method, {}), {1, 3}, DType::kFloat32, 1e-5);
    lasp::v1::TrainingSpec spec = Spec(method, {});
    spec.mutable_model()->set_tie_embeddings(true);
    ExpectAsOneRank(spec, {2, 2}, DType::kFloat32, 1e-5);
  }
}

TEST_F(DataParallelTest, RoundingIsAllThatDiffers) {
  for (const auto method : kMethods) {
    ExpectAsOneRank(Spec(method, {}), {1, 2}, DType::kFloat64, 1e-12);
  }
}

TEST_F(DataParallelTest, GroupsThatShardAmongThemselvesTrainAsOneRankDoes) {
  for (const auto method : kZeros) {
    lasp::v1::TrainingSpec spec = Spec(method, {});
    spec.mutable_parallelism()->mutable_data_parallel()->set_shard_group(
        DataParallelSpec::SHARD_GROUP_SP);
    ExpectAsOneRank(spec, {2, 2}, DType::kFloat32, 1e-5);
    ExpectAsOneRank(spec, {1, 2}, DType::kFloat64, 1e-12);
  }
}

// Minutes: for the nightly run.
TEST_F(DataParallelTest, NightlyEveryMethodOnEveryShape) {
  for (const auto method : kMethods) {
    for (const Shape shape : {Shape{1, 1}, Shape{1, 2}, Shape{1, 3}, Shape{1, 4}, Shape{2, 1},
                              Shape{2, 2}, Shape{3, 1}, Shape{4, 1}}) {
      for (const bool tied : {false, true}) {
        for (const int micro_batch : {1, 2}) {
          for (const int layers : {1, 2, 4}) {
            lasp::v1::TrainingSpec spec = Spec(method, shape);
            spec.mutable_model()->set_tie_embeddings(tied);
            spec.mutable_model()->set_layers(layers);
            spec.set_micro_batch_size(micro_batch);
            spec.set_global_batch_size(24);
            ExpectAsOneRank(spec, shape, DType::kFloat32, 1e-5);
            ExpectAsOneRank(spec, shape, DType::kFloat64, 1e-12);
            if (std::find(std::begin(kZeros), std::end(kZeros), method) != std::end(kZeros)) {
              spec.mutable_parallelism()->mutable_data_parallel()->set_shard_group(
                  DataParallelSpec::SHARD_GROUP_SP);
              ExpectAsOneRank(spec, shape, DType::kFloat32, 1e-5);
            }
          }
        }
      }
    }
  }
}

TEST_F(DataParallelTest, WhatOneMethodSavesEveryOtherLoads) {
  const std::map<DataParallelSpec::Method, Shape> shapes = {
      {DataParallelSpec::METHOD_DDP, {1, 2}},
      {DataParallelSpec::METHOD_ZERO1, {1, 3}},
      {DataParallelSpec::METHOD_ZERO2, {2, 2}},
      {DataParallelSpec::METHOD_ZERO3, {2, 1}}};
  for (const auto& [writer, shape] : shapes) {
    LocalTrainingOptions saving = SavingOptions(writer, shape);
    std::vector<std::vector<float>> saved;
    saving.on_tensors = Assemble(4, &saved);
    const auto whole = Train(saving);
    const auto reference = CommitStep(saving, whole, 4);
    for (const auto& [reader, other_shape] : shapes) {
      SCOPED_TRACE(absl::StrCat(DataParallelSpec::Method_Name(writer), " to ",
                                DataParallelSpec::Method_Name(reader)));
      LocalTrainingOptions resuming = SavingOptions(reader, other_shape);
      resuming.restore_from = reference;
      std::vector<std::vector<float>> restored;
      resuming.on_tensors = Assemble(4, &restored);
      const auto resumed = Train(resuming);
      EXPECT_TRUE(restored == saved);
      const std::vector<double> losses = Losses(resumed);
      ASSERT_EQ(losses.size(), 6u);
      for (size_t step = 0; step < losses.size(); ++step) {
        const double want = Losses(whole)[4 + step];
        if (reader == writer) {
          EXPECT_EQ(losses[step], want) << step + 5;
        } else {
          EXPECT_NEAR(losses[step] / want, 1, 1e-5) << step + 5;
        }
      }
    }
  }
}

TEST_F(DataParallelTest, GroupsThatShardAmongThemselvesSaveEachElementOnce) {
  // Written by the replicas together, read by one rank and by such groups of another size.
  LocalTrainingOptions saving = SavingOptions(DataParallelSpec::METHOD_ZERO3, {2, 2});
  const auto among_groups = [](LocalTrainingOptions* options) {
    options->spec.mutable_parallelism()->mutable_data_parallel()->set_shard_group(
        DataParallelSpec::SHARD_GROUP_SP);
  };
  among_groups(&saving);
  std::vector<std::vector<float>> saved;
  saving.on_tensors = Assemble(4, &saved);
  const auto whole = Train(saving);
  const auto reference = CommitStep(saving, whole, 4);
  const std::pair<DataParallelSpec::Method, Shape> readers[] = {
      {DataParallelSpec::METHOD_DDP, {1, 1}},
      {DataParallelSpec::METHOD_ZERO3, {2, 2}},
      {DataParallelSpec::METHOD_ZERO2, {1, 2}}};
  for (const auto& [method, shape] : readers) {
    LocalTrainingOptions resuming = SavingOptions(method, shape);
    if (method != DataParallelSpec::METHOD_DDP) {
      among_groups(&resuming);
    }
    resuming.restore_from = reference;
    std::vector<std::vector<float>> restored;
    resuming.on_tensors = Assemble(4, &restored);
    const auto resumed = Train(resuming);
    EXPECT_TRUE(restored == saved);
    const std::vector<double> losses = Losses(resumed);
    ASSERT_EQ(losses.size(), 6u);
    for (size_t step = 0; step < losses.size(); ++step) {
      const double want = Losses(whole)[4 + step];
      if (method == DataParallelSpec::METHOD_ZERO3) {
        EXPECT_EQ(losses[step], want) << step + 5;
      } else {
        EXPECT_NEAR(losses[step] / want, 1, 1e-5) << step + 5;
      }
    }
  }
}

TEST_F(DataParallelTest, AGradientThatIsNotFiniteOnOneRankLeavesAllAsTheyAre) {
  for (const auto method : {DataParallelSpec::METHOD_ZERO1, DataParallelSpec::METHOD_ZERO3}) {
    LocalTrainingOptions options = Options(Spec(method, {1, 3}));
    // A weight of the head that the last rank alone owns; what its loss becomes is everyone's.
    float kept = 0;
    options.on_tensors = [&kept](int rank, int64_t step, const Trainer& trainer, Backend& backend) {
      if (rank != 2) {
        return;
      }
      const Tensor value = trainer.parameters().Columns(trainer.owned_shares()->back().local, 1);
      if (step == 3) {
        backend.CopyToHost(value, &kept);
        const float infinite = std::numeric_limits<float>::infinity();
        backend.CopyFromHost(&infinite, value);
      } else if (step == 5) {
        backend.CopyFromHost(&kept, value);
      }
    };
    for (const LocalTrainingRecord& record : Train(options)) {
      ASSERT_EQ(record.steps.size(), 10u);
      EXPECT_EQ(record.steps[6].skipped_steps_total(), 2);
      EXPECT_EQ(record.steps[9].skipped_steps_total(), 2);
      EXPECT_EQ(record.steps[2].skipped_steps_total(), 0);
    }
  }
}

struct Plan {
  MemoryBill memory;
  int64_t sent = 0;  // bytes a step
};

TEST_F(DataParallelTest, MemoryAndTrafficAreWhatTheMethodSays) {
  constexpr int kRanks = 3;
  constexpr int64_t kMicroBatches = 12 / kRanks;
  std::map<DataParallelSpec::Method, Plan> plans;
  std::vector<ParameterUnit> units;
  for (const auto method : kMethods) {
    LocalTrainingOptions options = Options(Spec(method, {1, kRanks}));
    options.spec.mutable_model()->set_lrpe_theta(lasp::v1::ModelSpec::LRPE_THETA_FIXED);
    Plan& plan = plans[method];
    options.on_tensors = [&](int rank, int64_t step, const Trainer& trainer, Backend&) {
      if (rank == 0 && step == 0) {
        plan.memory = trainer.memory();
        units = trainer.layout().units();
      }
    };
    const auto records = Train(options);
    // Weights may still be on their way when a step is reported: the whole of two runs is counted.
    LocalTrainingOptions shorter = options;
    shorter.spec.set_max_steps(options.spec.max_steps() - 1);
    const auto fewer = Train(shorter);
    // The loss, the votes and the witness are six doubles, the norm and its witness two more, each
    // sent to every other rank.
    const int64_t control = (kRanks - 1) * static_cast<int64_t>(sizeof(double)) *
                            (method <= DataParallelSpec::METHOD_DDP ? int64_t{6} : int64_t{8});
    plan.sent = records[0].world_sent_bytes - fewer[0].world_sent_bytes - control;
  }
  // Elements, padded: a rank's shard, and its parts of what units of a slot share.
  int64_t shard = 0;
  int64_t slots = 0;
  std::map<int, int64_t> widest;
  for (const ParameterUnit& unit : units) {
    const int64_t part = ((unit.count + kRanks - 1) / kRanks + 63) / 64 * 64;
    shard += part;
    widest[unit.slot] = std::max(widest[unit.slot], part);
  }
  for (const auto& [slot, part] : widest) {
    slots += part;
  }
  const int64_t all = units.back().begin + units.back().count;
  const auto expect = [&](DataParallelSpec::Method method, int64_t weights, int64_t gradients,
                          int64_t optimizer, int64_t sent) {
    SCOPED_TRACE(DataParallelSpec::Method_Name(method));
    const Plan& plan = plans.at(method);
    // Of fp32. An allocation is rounded up to 256 bytes, and there are at most four of a kind.
    const auto expect_bytes = [&](MemoryUse use, int64_t elements) {
      EXPECT_GE(plan.memory[use], 4 * elements) << NameOf(use);
      EXPECT_LT(plan.memory[use], 4 * elements + 1024) << NameOf(use);
    };
    expect_bytes(MemoryUse::kWeights, weights);
    expect_bytes(MemoryUse::kGradients, gradients);
    expect_bytes(MemoryUse::kOptimizer, optimizer);
    EXPECT_EQ(plan.sent, 4 * sent);
    const int64_t other = plan.memory.total() - plan.memory[MemoryUse::kWeights] -
                          plan.memory[MemoryUse::kGradients] - plan.memory[MemoryUse::kOptimizer];
    const MemoryBill& ddp = plans.at(DataParallelSpec::METHOD_DDP).memory;
    EXPECT_EQ(other, ddp.total() - ddp[MemoryUse::kWeights] - ddp[MemoryUse::kGradients] -
                         ddp[MemoryUse::kOptimizer]);
  };
  // To each other rank: its piece of the gradients, and this one's sum of its own. Rank 0's pieces
  // are the smallest where they differ.
  const int64_t piece = all / kRanks;
  const int64_t ddp_sent = (all - piece) + (kRanks - 1) * piece;
  expect(DataParallelSpec::METHOD_LEGACY_DDP, all, all, 2 * all, ddp_sent);
  expect(DataParallelSpec::METHOD_DDP, all, all, 2 * all, ddp_sent);
  // On this device the masters are the weights' source too.
  const int64_t whole = kRanks * shard;
  const int64_t others = kRanks - 1;
  expect(DataParallelSpec::METHOD_ZERO1, whole + shard, whole, 2 * shard, others * 2 * shard);
  expect(DataParallelSpec::METHOD_ZERO2, whole + shard, kRanks * slots + shard, 2 * shard,
         others * (kMicroBatches + 1) * shard);
  // Gathered: the embedding and the head each time; of three blocks the first and the third share a
  // place, and in turn find it taken: by the third for the next forward, by the first, which stays
  // for the next micro-batch, in the backward. The second stays for the whole step.
  const auto part_of = [&](size_t unit) {
    return ((units[unit].count + kRanks - 1) / kRanks + 63) / 64 * 64;
  };
  const int64_t gathered = kMicroBatches * (part_of(0) + part_of(4)) +  // embedding and head
                           part_of(2) +                                 // the second block
                           part_of(1) + kMicroBatches * part_of(3) + kMicroBatches * part_of(1);
  for (const auto method : {DataParallelSpec::METHOD_ZERO3, DataParallelSpec::METHOD_FSDP}) {
    expect(method, kRanks * slots + shard, kRanks * slots + shard, 2 * shard,
           others * (kMicroBatches * shard + gathered));
  }
}

}  // namespace
}  // namespace lasp::worker
