// Training over several GPUs is training on one: the gradients from equal parameters, and a run of
// its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "tests/support/gpu.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/dump_reader.h"
#include "tests/worker/engine/local_training.h"
#include "tests/worker/model/computed_gradients.h"
#include "tests/worker/model/model_under_test.h"
#include "tests/worker/parallel/gpu_ranks.h"
#include "tests/worker/parallel/sequence_parallel_methods.h"
#include "worker/device/cuda_backend.h"
#include "worker/engine/strategies.h"

namespace lasp::worker {
namespace {

constexpr int64_t kSequences = 16;
// Of a batch whose gradients are compared: rounding averages out over tokens, a gradient does not.
constexpr int64_t kCompared = 64;
constexpr int64_t kLength = 1000;
constexpr int kSteps = 200;
constexpr int kPoints = 10;

// On a GPU each; one alone needs no NCCL.
std::vector<absl::Status> RunRanks(int sp_size, int dp_size,
                                   const std::function<absl::Status(LocalRank&)>& body) {
  if (sp_size * dp_size > 1) {
    return RunGpuRanks({.sp_size = sp_size, .dp_size = dp_size}, body);
  }
  return RunLocalRanks({.create_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
                         return CreateCudaBackend({});
                       }},
                       body);
}

class CudaRanksTraining : public ::lasp::testing::GpuTest {
 protected:
  CudaRanksTraining() : GpuTest(2) { folder_.Write("corpus.txt", MakeText(1'000'000, 5)); }

  static int Gpus() { return std::min(4, ::lasp::testing::GpuCount()); }

  // The quick start's model, wider.
  lasp::v1::TrainingSpec Spec(int sp_size, int dp_size, int steps) const {
    lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
    spec.mutable_model()->set_architecture(architecture_);
    spec.mutable_model()->set_hidden_size(256);
    spec.mutable_model()->set_heads(4);
    spec.mutable_model()->set_glu_size(704);
    spec.mutable_model()->set_init_std(0.02);
    spec.mutable_data()->set_sequence_length(kLength);
    spec.set_global_batch_size(kSequences);
    spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
    spec.mutable_parallelism()->mutable_data_parallel()->set_size(dp_size);
    // Slow enough that the loss falls throughout. Where it has levelled out tokens' gradients
    // cancel, and rounding, whatever computes it, is more than 1 % of what is left.
    spec.mutable_optimizer()->set_learning_rate(4e-5);
    spec.set_max_steps(steps);
    return spec;
  }

  std::vector<LocalTrainingRecord> Train(const lasp::v1::TrainingSpec& spec, int keep_every = 0) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    options.keep_parameters_every = keep_every;
    options.run_ranks = RunRanks;
    std::vector<LocalTrainingRecord> records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
    }
    return records;
  }

  // The gradients of one batch of the text for each of several sets of parameters.
  std::vector<std::vector<double>> Gradients(int sp_size,
                                             const std::vector<std::vector<float>>& parameters,
                                             const SequenceParallelMethod& method = {}) {
    const ModelConfig config = ModelConfig::FromSpec(Spec(1, 1, 1).model());
    std::vector<std::vector<double>> gradients;
    const auto body = [&](LocalRank& rank) -> absl::Status {
      LASP_ASSIGN_OR_RETURN(
          const auto model,
          ModelUnderTest::Create(config, {kCompared, kLength / sp_size}, rank, {.method = method}));
      for (size_t point = 0; point < parameters.size(); ++point) {
        const RandomSequences batch =
            TextSequences({kCompared, kLength}, point * kCompared * kLength);
        model->SetParameters({parameters[point].begin(), parameters[point].end()});
        LASP_RETURN_IF_ERROR(model->Run(batch.ids, batch.labels).status());
        if (rank.grid.rank() == 0) {
          gradients.push_back(model->Gradients());
        }
      }
      return rank.backend->Synchronize();
    };
    for (const absl::Status& status : RunRanks(sp_size, 1, body)) {
      LASP_EXPECT_OK(status);
    }
    return gradients;
  }

  ::lasp::testing::TempDirectory folder_;
  lasp::v1::ModelSpec::Architecture architecture_ = lasp::v1::ModelSpec::ARCHITECTURE_TRANSNORMER;
};

// What holds for every architecture.
class CudaRanksTrainingOf
    : public CudaRanksTraining,
      public ::testing::WithParamInterface<lasp::v1::ModelSpec::Architecture> {
 protected:
  CudaRanksTrainingOf() { architecture_ = GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(Architectures, CudaRanksTrainingOf,
                         ::testing::Values(lasp::v1::ModelSpec::ARCHITECTURE_TRANSNORMER,
                                           lasp::v1::ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER),
                         [](const auto& test) {
                           return lasp::v1::ModelSpec::Architecture_Name(test.param);
                         });

double Norm(const std::vector<double>& values) {
  double squares = 0;
  for (const double value : values) {
    squares += value * value;
  }
  return std::sqrt(squares);
}

TEST_F(CudaRanksTraining, SequenceParallelismChangesNeitherGradientsNorTheRun) {
  const int gpus = Gpus();
  const auto alone = Train(Spec(1, 1, kSteps), kSteps / kPoints);
  const std::vector<std::vector<float>>& parameters = alone[0].kept_parameters;
  ASSERT_EQ(parameters.size(), static_cast<size_t>(kPoints));
  const auto expected = Gradients(1, parameters);
  const auto actual = Gradients(gpus, parameters);
  ASSERT_EQ(expected.size(), parameters.size());
  ASSERT_EQ(actual.size(), parameters.size());
  const ParameterLayout layout(ModelConfig::FromSpec(Spec(1, 1, 1).model()));
  double worst = 0;
  double worst_norm = 0;
  for (size_t point = 0; point < expected.size(); ++point) {
    for (const Parameter& parameter : layout.parameters()) {
      const double error = RelativeRms(actual[point], expected[point], parameter);
      EXPECT_LE(error, 1e-2) << parameter.name << " at point " << point + 1;
      worst = std::max(worst, error);
    }
    const double norm = std::abs(Norm(actual[point]) / Norm(expected[point]) - 1);
    EXPECT_LE(norm, 1e-3) << "point " << point + 1;
    worst_norm = std::max(worst_norm, norm);
  }

  const std::vector<double> losses = Losses(alone);
  const auto together = Train(Spec(gpus, 1, kSteps));
  ASSERT_EQ(Losses(together).size(), losses.size());
  EXPECT_LT(losses.back(), losses.front() - 1);
  double worst_loss = 0;
  for (size_t step = 0; step < losses.size(); ++step) {
    const double difference = std::abs(Losses(together)[step] / losses[step] - 1);
    EXPECT_LE(difference, 5e-3) << "step " << step + 1;
    worst_loss = std::max(worst_loss, difference);
  }
  std::printf("SP %d against 1: worst gradient tensor %.2e, norm %.2e, loss %.2e\n", gpus, worst,
              worst_norm, worst_loss);
}

TEST_P(CudaRanksTrainingOf, EveryMethodGivesTheGradientsOfOneGpu) {
  const auto alone = Train(Spec(1, 1, 20), 20);
  const std::vector<std::vector<float>>& parameters = alone[0].kept_parameters;
  const auto expected = Gradients(1, parameters);
  const ParameterLayout layout(ModelConfig::FromSpec(Spec(1, 1, 1).model()));
  for (const SequenceParallelMethod& method : SequenceParallelMethods()) {
    SCOPED_TRACE(method.name);
    const auto actual = Gradients(2, parameters, method);
    ASSERT_EQ(actual.size(), expected.size());
    double worst = 0;
    for (const Parameter& parameter : layout.parameters()) {
      const double error = RelativeRms(actual[0], expected[0], parameter);
      EXPECT_LE(error, 1e-2) << parameter.name;
      worst = std::max(worst, error);
    }
    lasp::v1::TrainingSpec spec = Spec(2, 1, 20);
    spec.mutable_parallelism()->mutable_sequence_parallel()->set_method(method.method);
    const std::vector<double> losses = Losses(Train(spec));
    ASSERT_EQ(losses.size(), Losses(alone).size());
    double worst_loss = 0;
    for (size_t step = 0; step < losses.size(); ++step) {
      worst_loss = std::max(worst_loss, std::abs(losses[step] / Losses(alone)[step] - 1));
    }
    EXPECT_LE(worst_loss, 5e-3);
    std::printf("%s, SP 2 against 1: worst gradient tensor %.2e, loss %.2e\n", method.name, worst,
                worst_loss);
  }
}

// Sequences of 1000 tokens: the second rank's last slice is short, or has none.
TEST_P(CudaRanksTrainingOf, SequencesStreamWithEveryMethodThatCarriesStates) {
  using lasp::v1::MemorySpec;
  constexpr int kShort = 20;
  const auto train = [&](const lasp::v1::TrainingSpec& spec, const std::string& dump) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    options.dump_directory = folder_.Join(dump);
    options.run_ranks = [](int sp_size, int dp_size, const auto& body) {
      return sp_size == 1
                 ? RunRanks(sp_size, dp_size, body)
                 : RunGpuRanks({.sp_size = sp_size, .dp_size = dp_size, .streams = true}, body);
    };
    const auto records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
    }
    return Losses(records);
  };
  const std::vector<double> alone = train(Spec(1, 1, kShort), "alone");
  const auto expected = ReadDump(folder_.Join("alone/rank-0"));
  for (const SequenceParallelMethod& method : SequenceParallelMethods()) {
    if (method.method == lasp::v1::SequenceParallelSpec::METHOD_RING_ATTENTION) {
      continue;  // has no states
    }
    for (const int64_t chunk_tokens : {192, 400}) {
      const std::string name = absl::StrCat(method.name, "-", chunk_tokens);
      SCOPED_TRACE(name);
      lasp::v1::TrainingSpec spec = Spec(2, 1, kShort);
      spec.mutable_parallelism()->mutable_sequence_parallel()->set_method(method.method);
      spec.mutable_memory()->set_activations(MemorySpec::ACTIVATIONS_STREAM);
      spec.mutable_memory()->set_stream_chunk_tokens(chunk_tokens);
      const std::vector<double> losses = train(spec, name);
      ASSERT_EQ(losses.size(), alone.size());
      double worst_loss = 0;
      for (size_t step = 0; step < losses.size(); ++step) {
        worst_loss = std::max(worst_loss, std::abs(losses[step] / alone[step] - 1));
      }
      EXPECT_LE(worst_loss, 5e-3);
      double worst = 0;
      const auto arrays = ReadDump(folder_.Join(name + "/rank-1"));
      for (const auto& [array, want] : expected) {
        if (array.rfind("gradient/", 0) == 0) {
          const double error = RelativeRms(arrays.at(array), want);
          EXPECT_LE(error, 1e-2) << array;
          worst = std::max(worst, error);
        }
      }
      EXPECT_EQ(train(spec, name + "-again"), losses);
      std::printf("%s streamed over 2 GPUs against 1: worst gradient tensor %.2e, loss %.2e\n",
                  name.c_str(), worst, worst_loss);
    }
  }
}

// Heads and the MLP's columns shared out over two GPUs, each with half of the blocks' weights.
TEST_P(CudaRanksTrainingOf, TensorParallelismIsTheTrainingOfOneGpu) {
  using lasp::v1::DataParallelSpec;
  using lasp::v1::MemorySpec;
  constexpr int kShort = 20;
  const auto train = [&](const lasp::v1::TrainingSpec& spec, const std::string& dump) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    options.dump_directory = folder_.Join(dump);
    options.run_ranks = [&spec](int sp_size, int dp_size, const auto& body) {
      return sp_size == 1
                 ? RunRanks(sp_size, dp_size, body)
                 : RunGpuRanks(
                       {.sp_size = sp_size,
                        .dp_size = dp_size,
                        .groups_shard = true,
                        .streams = spec.memory().activations() == MemorySpec::ACTIVATIONS_STREAM},
                       body);
    };
    const auto records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
    }
    return Losses(records);
  };
  const std::vector<double> alone = train(Spec(1, 1, kShort), "alone");
  const auto expected = ReadDump(folder_.Join("alone/rank-0"));
  for (const auto method : {DataParallelSpec::METHOD_DDP, DataParallelSpec::METHOD_ZERO3}) {
    // Of 1000 tokens: in macro-chunks whose last leaves the second rank few, and none.
    for (const auto& [activations, chunk_tokens] :
         {std::pair(MemorySpec::ACTIVATIONS_KEEP, 0),
          std::pair(MemorySpec::ACTIVATIONS_RECOMPUTE, 0),
          std::pair(MemorySpec::ACTIVATIONS_STREAM, 192),
          std::pair(MemorySpec::ACTIVATIONS_STREAM, 400)}) {
      lasp::v1::TrainingSpec spec = Spec(2, 1, kShort);
      lasp::v1::ParallelismSpec& parallelism = *spec.mutable_parallelism();
      parallelism.mutable_sequence_parallel()->set_method(
          lasp::v1::SequenceParallelSpec::METHOD_MEGATRON_SP);
      parallelism.mutable_data_parallel()->set_method(method);
      spec.mutable_memory()->set_activations(activations);
      spec.mutable_memory()->set_stream_chunk_tokens(chunk_tokens);
      const std::string name =
          absl::StrCat(DataParallelSpec::Method_Name(method), "-",
                       MemorySpec::Activations_Name(activations), "-", chunk_tokens);
      SCOPED_TRACE(name);
      const std::vector<double> losses = train(spec, name);
      ASSERT_EQ(losses.size(), alone.size());
      double worst_loss = 0;
      for (size_t step = 0; step < losses.size(); ++step) {
        worst_loss = std::max(worst_loss, std::abs(losses[step] / alone[step] - 1));
      }
      EXPECT_LE(worst_loss, 5e-3);
      double worst = 0;
      const auto arrays = ReadDump(folder_.Join(name + "/rank-1"));
      for (const auto& [array, want] : expected) {
        if (array.rfind("gradient/", 0) == 0) {
          const double error = RelativeRms(arrays.at(array), want);
          EXPECT_LE(error, 1e-2) << array;
          worst = std::max(worst, error);
        }
      }
      EXPECT_EQ(train(spec, name + "-again"), losses);
      std::printf("MEGATRON_SP, %s, on 2 GPUs against 1: worst gradient tensor %.2e, loss %.2e\n",
                  name.c_str(), worst, worst_loss);
    }
  }
}

// A document a sentence: several in each slice and macro-chunk, and some over their borders.
TEST_P(CudaRanksTrainingOf, PackedDocumentsStayApartWithEveryMethod) {
  using lasp::v1::MemorySpec;
  constexpr int kShort = 20;
  const auto train = [&](lasp::v1::TrainingSpec spec, const std::string& dump) {
    spec.mutable_data()->set_documents(lasp::v1::DataSpec::DOCUMENTS_PACKED);
    spec.mutable_data()->set_document_end_token('\n');
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    options.dump_directory = folder_.Join(dump);
    options.run_ranks = [&spec](int sp_size, int dp_size, const auto& body) {
      return sp_size == 1 ? RunRanks(sp_size, dp_size, body)
                          : RunGpuRanks({.sp_size = sp_size,
                                         .dp_size = dp_size,
                                         .groups_shard = GroupsShard(spec.parallelism()),
                                         .streams = Streams(spec)},
                                        body);
    };
    const auto records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
    }
    return Losses(records);
  };
  const std::vector<double> alone = train(Spec(1, 1, kShort), "alone");
  const auto expected = ReadDump(folder_.Join("alone/rank-0"));
  for (const SequenceParallelMethod& method : EverySequenceParallelMethod()) {
    if (method.method == lasp::v1::SequenceParallelSpec::METHOD_RING_ATTENTION) {
      continue;  // packs none
    }
    for (const auto activations : {MemorySpec::ACTIVATIONS_KEEP, MemorySpec::ACTIVATIONS_STREAM}) {
      const std::string name =
          absl::StrCat(method.name, "-", MemorySpec::Activations_Name(activations));
      SCOPED_TRACE(name);
      lasp::v1::TrainingSpec spec = Spec(2, 1, kShort);
      spec.mutable_parallelism()->mutable_sequence_parallel()->set_method(method.method);
      spec.mutable_memory()->set_activations(activations);
      if (activations == MemorySpec::ACTIVATIONS_STREAM) {
        spec.mutable_memory()->set_stream_chunk_tokens(192);
      }
      const std::vector<double> losses = train(spec, name);
      ASSERT_EQ(losses.size(), alone.size());
      double worst_loss = 0;
      for (size_t step = 0; step < losses.size(); ++step) {
        worst_loss = std::max(worst_loss, std::abs(losses[step] / alone[step] - 1));
      }
      EXPECT_LE(worst_loss, 5e-3);
      double worst = 0;
      const auto arrays = ReadDump(folder_.Join(name + "/rank-1"));
      for (const auto& [array, want] : expected) {
        if (array.rfind("gradient/", 0) == 0) {
          const double error = RelativeRms(arrays.at(array), want);
          EXPECT_LE(error, 1e-2) << array;
          worst = std::max(worst, error);
        }
      }
      std::printf(
          "%s of packed documents over 2 GPUs against 1: worst gradient tensor %.2e, loss %.2e\n",
          name.c_str(), worst, worst_loss);
    }
  }
}

TEST_F(CudaRanksTraining, EveryDataParallelMethodIsTheTrainingOfOneGpu) {
  using lasp::v1::DataParallelSpec;
  constexpr int kShort = 20;
  const auto train = [&](const lasp::v1::TrainingSpec& spec, const std::string& dump) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    options.dump_directory = folder_.Join(dump);
    options.run_ranks = RunRanks;
    const auto records = TrainLocally(options);
    for (const LocalTrainingRecord& record : records) {
      LASP_EXPECT_OK(record.status);
    }
    return std::pair(Losses(records), GradientNorms(records));
  };
  const auto [alone, norms] = train(Spec(1, 1, kShort), "alone");
  const auto expected = ReadDump(folder_.Join("alone/rank-0"));
  for (const auto method : {DataParallelSpec::METHOD_LEGACY_DDP, DataParallelSpec::METHOD_DDP,
                            DataParallelSpec::METHOD_ZERO1, DataParallelSpec::METHOD_ZERO2,
                            DataParallelSpec::METHOD_ZERO3}) {
    for (const int sp_size : {1, 2}) {
      lasp::v1::TrainingSpec spec = Spec(sp_size, 2 / sp_size, kShort);
      spec.mutable_parallelism()->mutable_data_parallel()->set_method(method);
      const std::string name = absl::StrCat(DataParallelSpec::Method_Name(method), "-", sp_size);
      SCOPED_TRACE(name);
      const auto [losses, own_norms] = train(spec, name);
      ASSERT_EQ(losses.size(), alone.size());
      double worst_loss = 0;
      for (size_t step = 0; step < losses.size(); ++step) {
        worst_loss = std::max(worst_loss, std::abs(losses[step] / alone[step] - 1));
      }
      EXPECT_LE(worst_loss, 5e-3);
      double worst = 0;
      const auto arrays = ReadDump(folder_.Join(name + "/rank-1"));
      for (const auto& [array, want] : expected) {
        if (array.rfind("gradient/", 0) == 0) {
          const double error = RelativeRms(arrays.at(array), want);
          EXPECT_LE(error, 1e-2) << array;
          worst = std::max(worst, error);
        }
      }
      const auto again = train(spec, name + "-again");
      EXPECT_EQ(again.first, losses);
      EXPECT_EQ(again.second, own_norms);
      std::printf("%s on 2 GPUs against 1: worst gradient tensor %.2e, loss %.2e\n", name.c_str(),
                  worst, worst_loss);
    }
  }
}

TEST_F(CudaRanksTraining, EveryShapeGivesTheSameBitsTwice) {
  constexpr int kShort = 20;
  const std::vector<double> alone = Losses(Train(Spec(1, 1, kShort)));
  const int gpus = Gpus();
  for (const int sp_size : {gpus, 1}) {
    SCOPED_TRACE(sp_size);
    const lasp::v1::TrainingSpec spec = Spec(sp_size, gpus / sp_size, kShort);
    const auto records = Train(spec);
    const std::vector<double> losses = Losses(records);
    ASSERT_EQ(losses.size(), alone.size());
    for (size_t step = 0; step < losses.size(); ++step) {
      EXPECT_NEAR(losses[step] / alone[step], 1, 5e-3) << "step " << step + 1;
    }
    for (const LocalTrainingRecord& record : records) {
      EXPECT_EQ(record.parameters, records[0].parameters);
    }
    const auto again = Train(spec);
    EXPECT_EQ(Losses(again), losses);
    EXPECT_EQ(GradientNorms(again), GradientNorms(records));
    EXPECT_EQ(again.back().parameters, records[0].parameters);
  }
}

}  // namespace
}  // namespace lasp::worker
