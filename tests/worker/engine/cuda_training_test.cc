// The same training on a GPU as on the CPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/gpu.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/checkpoint/commit.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/dump_reader.h"
#include "tests/worker/engine/local_training.h"
#include "tests/worker/engine/model_100m.h"
#include "worker/device/cuda_backend.h"

namespace lasp::worker {
namespace {

class CudaTraining : public ::lasp::testing::GpuTest {
 protected:
  CudaTraining() { folder_.Write("corpus.txt", MakeText(400'000, 5)); }

  // The quick start's model, on one rank.
  lasp::v1::TrainingSpec Spec() const {
    lasp::v1::TrainingSpec spec = SmallSpec("corpus.txt");
    spec.mutable_model()->set_architecture(architecture_);
    spec.mutable_model()->set_hidden_size(256);
    spec.mutable_model()->set_heads(4);
    spec.mutable_model()->set_glu_size(704);
    spec.mutable_data()->set_sequence_length(1000);
    spec.set_max_steps(20);
    return spec;
  }

  LocalTrainingRecord Train(const lasp::v1::TrainingSpec& spec, bool gpu) {
    LocalTrainingOptions options;
    options.spec = spec;
    options.path_roots = {folder_.path()};
    if (spec.model().layers() == Spec().model().layers()) {
      options.dump_directory = folder_.Join(gpu ? "gpu" : "cpu");
    }
    if (gpu) {
      options.create_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
        return CreateCudaBackend({});
      };
    }
    LocalTrainingRecord record = TrainLocally(options)[0];
    LASP_EXPECT_OK(record.status);
    return record;
  }

  ::lasp::testing::TempDirectory folder_;
  lasp::v1::ModelSpec::Architecture architecture_ = lasp::v1::ModelSpec::ARCHITECTURE_TRANSNORMER;
};

// What holds for every architecture.
class CudaTrainingOf : public CudaTraining,
                       public ::testing::WithParamInterface<lasp::v1::ModelSpec::Architecture> {
 protected:
  CudaTrainingOf() { architecture_ = GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(Architectures, CudaTrainingOf,
                         ::testing::Values(lasp::v1::ModelSpec::ARCHITECTURE_TRANSNORMER,
                                           lasp::v1::ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER),
                         [](const auto& test) {
                           return lasp::v1::ModelSpec::Architecture_Name(test.param);
                         });

TEST_P(CudaTrainingOf, FollowsTheCpuFromTheSameParameters) {
  const std::vector<double> cpu = Losses({Train(Spec(), false)});
  const std::vector<double> gpu = Losses({Train(Spec(), true)});
  ASSERT_EQ(gpu.size(), 20u);
  EXPECT_LT(gpu.back(), gpu.front() - 0.5);
  for (size_t step = 0; step < cpu.size(); ++step) {
    EXPECT_NEAR(gpu[step] / cpu[step], 1, 0.01) << "step " << step + 1;
  }
  const auto want = ReadDump(folder_.Join("cpu") + "/rank-0");
  const auto got = ReadDump(folder_.Join("gpu") + "/rank-0");
  double worst = 0;
  for (const auto& [name, tensor] : want) {
    if (name.rfind("parameter/", 0) == 0) {
      EXPECT_EQ(got.at(name), tensor) << name;
    } else if (name.rfind("gradient/", 0) == 0) {
      const double error = RelativeRms(got.at(name), tensor);
      EXPECT_LE(error, 2e-2) << name;
      worst = std::max(worst, error);
    }
  }
  std::printf("worst gradient tensor: %.2e\n", worst);
}

// A document a sentence.
TEST_P(CudaTrainingOf, KeepsDocumentsApartLikeTheCpu) {
  lasp::v1::TrainingSpec spec = Spec();
  spec.mutable_data()->set_documents(lasp::v1::DataSpec::DOCUMENTS_PACKED);
  spec.mutable_data()->set_document_end_token('\n');
  const std::vector<double> cpu = Losses({Train(spec, false)});
  const std::vector<double> gpu = Losses({Train(spec, true)});
  ASSERT_EQ(gpu.size(), cpu.size());
  for (size_t step = 0; step < cpu.size(); ++step) {
    EXPECT_NEAR(gpu[step] / cpu[step], 1, 0.01) << "step " << step + 1;
  }
  const auto want = ReadDump(folder_.Join("cpu") + "/rank-0");
  const auto got = ReadDump(folder_.Join("gpu") + "/rank-0");
  double worst = 0;
  for (const auto& [name, tensor] : want) {
    if (name.rfind("gradient/", 0) == 0) {
      const double error = RelativeRms(got.at(name), tensor);
      EXPECT_LE(error, 2e-2) << name;
      worst = std::max(worst, error);
    }
  }
  std::printf("packed documents: worst gradient tensor: %.2e\n", worst);
}

TEST_P(CudaTrainingOf, EveryActivationPlanTrainsTheSame) {
  using lasp::v1::MemorySpec;
  const auto train = [this](const std::string& name, MemorySpec::Activations activations,
                            int64_t chunk_tokens, MemorySpec::Recompute recompute) {
    LocalTrainingOptions options;
    options.spec = Spec();
    options.spec.mutable_model()->set_layers(4);
    options.spec.mutable_memory()->set_activations(activations);
    options.spec.mutable_memory()->set_stream_chunk_tokens(chunk_tokens);
    options.spec.mutable_memory()->set_recompute(recompute);
    options.path_roots = {folder_.path()};
    options.dump_directory = folder_.Join(name);
    options.create_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
      return CreateCudaBackend({});
    };
    const LocalTrainingRecord record = TrainLocally(options)[0];
    LASP_EXPECT_OK(record.status);
    return Losses({record});
  };
  const std::vector<double> kept =
      train("keep", MemorySpec::ACTIVATIONS_KEEP, 0, MemorySpec::RECOMPUTE_BLOCKS);
  const auto want = ReadDump(folder_.Join("keep") + "/rank-0");

  struct Case {
    const char* name;
    MemorySpec::Activations activations;
    int64_t chunk_tokens;
    MemorySpec::Recompute recompute;
  };

  // Sequences have 1000 tokens: five macro-chunks of 192, and 40; or as many as fit.
  for (const auto& [name, activations, chunk_tokens, recompute] :
       {Case{"blocks", MemorySpec::ACTIVATIONS_RECOMPUTE, 0, MemorySpec::RECOMPUTE_BLOCKS},
        Case{"selective", MemorySpec::ACTIVATIONS_RECOMPUTE, 0, MemorySpec::RECOMPUTE_SELECTIVE},
        Case{"offload", MemorySpec::ACTIVATIONS_OFFLOAD, 0, MemorySpec::RECOMPUTE_BLOCKS},
        Case{"stream", MemorySpec::ACTIVATIONS_STREAM, 192, MemorySpec::RECOMPUTE_BLOCKS},
        Case{"chosen", MemorySpec::ACTIVATIONS_STREAM, 0, MemorySpec::RECOMPUTE_BLOCKS}}) {
    SCOPED_TRACE(name);
    const std::vector<double> losses = train(name, activations, chunk_tokens, recompute);
    ASSERT_EQ(losses.size(), kept.size());
    for (size_t step = 0; step < kept.size(); ++step) {
      EXPECT_NEAR(losses[step] / kept[step], 1, 5e-3) << "step " << step + 1;
    }
    const auto got = ReadDump(folder_.Join(name) + "/rank-0");
    double worst = 0;
    for (const auto& [tensor, values] : want) {
      if (tensor.rfind("gradient/", 0) == 0) {
        const double error = RelativeRms(got.at(tensor), values);
        EXPECT_LE(error, 1e-2) << tensor;
        worst = std::max(worst, error);
      }
    }
    std::printf("%s: worst gradient tensor: %.2e\n", name, worst);
  }
}

TEST_P(CudaTrainingOf, TwoRunsAreBitEqual) {
  const LocalTrainingRecord first = Train(Spec(), true);
  const LocalTrainingRecord second = Train(Spec(), true);
  EXPECT_EQ(Losses({first}), Losses({second}));
  EXPECT_EQ(GradientNorms({first}), GradientNorms({second}));
  EXPECT_EQ(first.parameters, second.parameters);
}

// To the bit on the same kind of GPU with the same matrix products; on the CPU with the tensors to
// the bit; and back.
TEST_F(CudaTraining, GoesOnFromACheckpointOnEitherDevice) {
  constexpr char kFolder[] = "default/uid";
  std::filesystem::create_directories(folder_.Join(kFolder));
  LocalTrainingOptions options;
  options.spec = Spec();
  options.spec.mutable_checkpoint()->set_interval_steps(10);
  options.path_roots = {folder_.path()};
  options.checkpoint_root = folder_.path();
  options.checkpoint_folder = kFolder;
  std::map<int64_t, std::vector<float>> values;
  std::string record;
  const auto keep = [&values](int64_t step, const Trainer& trainer, Backend& backend) {
    std::vector<float>& kept = values[step];
    kept.clear();
    for (const Tensor& tensor : trainer.tensors()) {
      const size_t begin = kept.size();
      kept.resize(begin + static_cast<size_t>(tensor.count()));
      backend.CopyToHost(tensor, kept.data() + begin);
    }
  };
  const auto on_gpu = [&](int64_t generation) {
    options.generation = generation;
    options.create_backend = [&record]() -> absl::StatusOr<std::unique_ptr<Backend>> {
      return CreateCudaBackend({.gemm_record = record});
    };
    options.on_tensors = [&](int, int64_t step, const Trainer& trainer, Backend& backend) {
      keep(step, trainer, backend);
      record = static_cast<CudaBackend&>(backend).GemmRecord();
    };
    LocalTrainingRecord trained = TrainLocally(options)[0];
    LASP_EXPECT_OK(trained.status);
    return trained;
  };
  const auto commit = [&](const LocalTrainingRecord& trained, size_t index) {
    const auto reference =
        CommitCheckpoint(folder_.path(), kFolder, options.spec, {trained.shards.at(index)});
    LASP_EXPECT_OK(reference);
    return *reference;
  };
  const LocalTrainingRecord whole = on_gpu(1);
  const std::vector<float> tenth = values[10];
  const std::vector<float> twentieth = values[20];
  const std::vector<double> losses = Losses({whole});

  options.restore_from = commit(whole, 0);
  const LocalTrainingRecord resumed = on_gpu(2);
  EXPECT_EQ(Losses({resumed}), (std::vector<double>{losses.begin() + 10, losses.end()}));
  EXPECT_EQ(values[20], twentieth);

  options.generation = 3;
  options.create_backend = {};
  options.on_tensors = [&](int, int64_t step, const Trainer& trainer, Backend& backend) {
    keep(step, trainer, backend);
  };
  const LocalTrainingRecord cpu = TrainLocally(options)[0];
  LASP_ASSERT_OK(cpu.status);
  EXPECT_EQ(values[10], tenth);
  const std::vector<double> cpu_losses = Losses({cpu});
  ASSERT_EQ(cpu_losses.size(), 10u);
  for (size_t step = 0; step < cpu_losses.size(); ++step) {
    EXPECT_NEAR(cpu_losses[step] / losses[10 + step], 1, 0.01) << "step " << step + 11;
  }
  const std::vector<float> of_cpu = values[20];
  options.restore_from = commit(cpu, 0);
  EXPECT_EQ(on_gpu(4).end.step, 20);
  EXPECT_EQ(values[20], of_cpu);
}

// The CPU's losses are in a file: computing them takes a quarter of an hour.
TEST_F(CudaTraining, AHundredMillionParametersFollowTheCpu) {
  const std::vector<double> cpu = {
#include "tests/worker/engine/model_100m_losses.inc"
  };
  folder_.Write("corpus.bin", Model100MCorpus());
  const std::vector<double> gpu = Losses({Train(Model100MSpec("corpus.bin"), true)});
  ASSERT_EQ(gpu.size(), cpu.size());
  double worst = 0;
  for (size_t step = 0; step < cpu.size(); ++step) {
    const double difference = std::abs(gpu[step] / cpu[step] - 1);
    EXPECT_LE(difference, 0.01) << "step " << step + 1;
    worst = std::max(worst, difference);
  }
  EXPECT_LT(gpu.back(), gpu.front() - 2);
  std::printf("100M model: loss %.4f to %.4f, at most %.2e from the CPU's\n", gpu.front(),
              gpu.back(), worst);
}

TEST_F(CudaTraining, WhatCannotFitIsRefusedWithTheBill) {
  lasp::v1::TrainingSpec spec = Spec();
  spec.mutable_model()->set_hidden_size(1 << 18);
  spec.mutable_model()->set_heads(1 << 11);
  LocalTrainingOptions options;
  options.spec = spec;
  options.path_roots = {folder_.path()};
  options.create_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
    return CreateCudaBackend({});
  };
  EXPECT_THAT(TrainLocally(options)[0].status,
              ::lasp::testing::StatusIs(absl::StatusCode::kFailedPrecondition,
                                        ::testing::AllOf(::testing::HasSubstr("are free"),
                                                         ::testing::HasSubstr("optimizer"))));
}

}  // namespace
}  // namespace lasp::worker
