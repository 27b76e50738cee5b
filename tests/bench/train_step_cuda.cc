// Time and memory of a training step on the GPUs of one host, through the engine's own trainer.
// Prints JSON.
//   train_step_cuda [TOKENS [LAYERS [STEPS [GPUS [SP [copies|nccl [FOLDER [INTERVAL
//   [METHOD]]]]]]]]]
// and anywhere --data_parallel=METHOD, such as ZERO3 (default DDP), --chunk=TOKENS,
// --activations=KEEP|RECOMPUTE|SELECTIVE|OFFLOAD|STREAM, and --no_gradient_sync, with DDP: each
// rank keeps its own gradients, to time what else goes over a slow link. --without=fusion, caching
// or fusion,caching: LASP with these left out (tests/bench/ablation).
//
// TransNormerLLM-1B's shape: 16 layers; 32,768 tokens a GPU; one GPU; SP over all; states and
// gradients by copy engines; without checkpoints ('' for FOLDER too), or with one in FOLDER every 4
// steps; sequence parallelism by LASP, or another METHOD such as LASP2. Activations as the spec's
// memory has them (KEEP; SELECTIVE is RECOMPUTE of what takes no product): with STREAM TOKENS may
// be millions, of which a GPU takes --chunk at a time (0: as many as fit).
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/spec_defaults.h"
#include "tests/bench/ablation/ablated_lasp.h"
#include "tests/bench/ablation/add_decayed_cuda.h"
#include "tests/bench/without_sums.h"
#include "tests/worker/parallel/gpu_rank_processes.h"
#include "worker/checkpoint/checkpoints.h"
#include "worker/data/batch_source.h"
#include "worker/device/cuda_backend.h"
#include "worker/engine/drain_request.h"
#include "worker/engine/strategies.h"
#include "worker/engine/trainer.h"
#include "worker/parallel/peer_communicator.h"

namespace lasp::worker {
namespace {

constexpr int64_t kVocabulary = 64000;
constexpr absl::string_view kMethodPrefix = "METHOD_";

lasp::v1::TrainingSpec Spec(const std::string& corpus, int64_t tokens, int layers, int steps,
                            int sp_size, int dp_size, int64_t interval,
                            lasp::v1::SequenceParallelSpec::Method method,
                            const lasp::v1::MemorySpec& memory) {
  lasp::v1::TrainingSpec spec;
  lasp::v1::ModelSpec& model = *spec.mutable_model();
  model.set_architecture(lasp::v1::ModelSpec::ARCHITECTURE_TRANSNORMER);
  model.set_layers(layers);
  model.set_hidden_size(2048);
  model.set_heads(16);
  model.set_glu_size(5632);
  model.set_vocab_size(kVocabulary);
  spec.mutable_data()->add_train_paths(corpus);
  spec.mutable_data()->set_format(lasp::v1::DataSpec::FORMAT_UINT16);
  spec.mutable_data()->set_sequence_length(tokens * sp_size);
  spec.mutable_optimizer()->set_learning_rate(3e-4);
  spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
  spec.mutable_parallelism()->mutable_sequence_parallel()->set_method(method);
  spec.mutable_parallelism()->mutable_data_parallel()->set_size(dp_size);
  spec.set_global_batch_size(dp_size);
  spec.set_micro_batch_size(1);
  spec.set_max_steps(steps);
  spec.set_seed(1);
  spec.mutable_checkpoint()->set_interval_steps(interval);
  *spec.mutable_memory() = memory;
  FillDefaults(&spec);
  return spec;
}

// What --data_parallel names, taken out of the arguments; none where there is no such method.
std::optional<lasp::v1::DataParallelSpec::Method> TakeDataParallel(int* argc, char** argv) {
  const std::string flag = "--data_parallel=";
  auto method = lasp::v1::DataParallelSpec::METHOD_DDP;
  int kept = 0;
  for (int i = 0; i < *argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind(flag, 0) != 0) {
      argv[kept++] = argv[i];
    } else if (!lasp::v1::DataParallelSpec::Method_Parse("METHOD_" + argument.substr(flag.size()),
                                                         &method)) {
      return std::nullopt;
    }
  }
  *argc = kept;
  return method;
}

// Whether --no_gradient_sync was among the arguments, and takes it out.
bool TakeNoGradientSync(int* argc, char** argv) {
  char** const end = std::remove_if(argv, argv + *argc, [](const char* argument) {
    return std::string(argument) == "--no_gradient_sync";
  });
  const bool found = end != argv + *argc;
  *argc = static_cast<int>(end - argv);
  return found;
}

// What --without names is false; none where it names something else.
std::optional<bench::Ablation> TakeAblation(int* argc, char** argv) {
  const std::string flag = "--without=";
  bench::Ablation ablation;
  int kept = 0;
  for (int i = 0; i < *argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind(flag, 0) != 0) {
      argv[kept++] = argv[i];
      continue;
    }
    const std::vector<std::string> parts = absl::StrSplit(argument.substr(flag.size()), ',');
    for (const std::string& part : parts) {
      if (part != "fusion" && part != "caching") {
        return std::nullopt;
      }
      (part == "fusion" ? ablation.fused : ablation.cached) = false;
    }
  }
  *argc = kept;
  return ablation;
}

// Likewise of --activations=PLAN and --chunk=TOKENS.
std::optional<lasp::v1::MemorySpec> TakeMemorySpec(int* argc, char** argv) {
  using lasp::v1::MemorySpec;
  MemorySpec memory;
  int kept = 0;
  for (int i = 0; i < *argc; ++i) {
    const std::string argument = argv[i];
    const std::string value = argument.substr(argument.find('=') + 1);
    if (argument.rfind("--chunk=", 0) == 0) {
      memory.set_stream_chunk_tokens(std::atoll(value.c_str()));
    } else if (argument.rfind("--activations=", 0) == 0) {
      auto activations = MemorySpec::ACTIVATIONS_RECOMPUTE;
      if (value == "SELECTIVE") {
        memory.set_recompute(MemorySpec::RECOMPUTE_SELECTIVE);
      } else if (!MemorySpec::Activations_Parse("ACTIVATIONS_" + value, &activations)) {
        return std::nullopt;
      }
      memory.set_activations(activations);
    } else {
      argv[kept++] = argv[i];
    }
  }
  *argc = kept;
  return memory;
}

void WriteCorpus(const std::string& path, int64_t tokens) {
  std::mt19937 random(7);
  std::vector<uint16_t> values(static_cast<size_t>(tokens));
  for (uint16_t& value : values) {
    value = static_cast<uint16_t>(random() % kVocabulary);
  }
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(uint16_t)));
}

// Where a rank's time goes in its median step, as members of a JSON object.
std::string PhasesOf(const StepResult& step) {
  return absl::StrFormat(
      "\"forward_ms\": %.2f, \"backward_ms\": %.2f, \"optimizer_ms\": %.2f, \"data_ms\": %.2f, "
      "\"gradient_sync_ms\": %.2f, \"sp_wait_ms\": %.2f",
      step.phases[Phase::kForward] * 1e3, step.phases[Phase::kBackward] * 1e3,
      step.phases[Phase::kOptimizer] * 1e3, step.phases[Phase::kData] * 1e3,
      step.phases[Phase::kGradientSync] * 1e3, step.phases[Phase::kSpWait] * 1e3);
}

// Null where `folder` is empty.
absl::StatusOr<std::unique_ptr<Checkpoints>> OpenCheckpoints(const LocalRank& rank,
                                                             const lasp::v1::TrainingSpec& spec,
                                                             const Trainer& trainer,
                                                             const std::string& folder) {
  if (folder.empty()) {
    return nullptr;
  }
  lasp::v1::Fence fence;
  fence.set_rank(rank.grid.rank());
  fence.set_generation(1);
  return Checkpoints::Create({.writer = {.root = folder,
                                         .folder = "train-step-cuda",
                                         .fence = fence,
                                         .world_size = rank.grid.world_size(),
                                         .layout = &trainer.layout(),
                                         .backend = rank.backend,
                                         .tensors = trainer.tensors(),
                                         .saved = trainer.saved_shares(),
                                         .staging = trainer.staging(),
                                         .on_shard = [](const lasp::v1::ShardWritten&) {}},
                              .spec = spec.checkpoint()});
}

// What checkpoints cost, as members of a JSON object. `writing`: steps while one was written.
std::string CheckpointsOf(Checkpoints* checkpoints, std::vector<double> writing) {
  if (checkpoints == nullptr || writing.empty()) {
    return "";
  }
  const lasp::internal::v1::CheckpointTotals totals = checkpoints->totals();
  std::sort(writing.begin(), writing.end());
  return absl::StrFormat(
      ", \"checkpoints\": %d, \"checkpoint_failures\": %d, \"checkpoint_bytes\": %d, "
      "\"checkpoint_stall_ms\": %.2f, \"checkpoint_write_seconds\": %.2f, "
      "\"step_ms_while_writing\": %.2f",
      totals.written(), totals.failed(), totals.bytes(),
      totals.stall_seconds() * 1e3 / static_cast<double>(std::max<int64_t>(1, totals.written())),
      totals.write_seconds() / static_cast<double>(std::max<int64_t>(1, totals.written())),
      writing[writing.size() / 2] * 1e3);
}

// Null where nothing is left out.
std::unique_ptr<SequenceParallel> CreateAblated(const bench::Ablation& ablation, LocalRank& rank) {
  if (ablation.fused && ablation.cached) {
    return nullptr;
  }
  cudaStream_t const stream = static_cast<CudaBackend*>(rank.backend)->stream();
  return bench::CreateAblatedLasp(
      rank.backend, rank.sp, ablation,
      [stream](const AttentionShape& shape, Tensor x, bool from_end, Tensor y) {
        const cudaError_t error =
            bench::AddDecayedOnGpu({.batch = shape.batch,
                                    .tokens = shape.tokens,
                                    .heads = shape.heads,
                                    .head_size = shape.head_size,
                                    .slopes = static_cast<const double*>(shape.slopes.data),
                                    .from_end = from_end,
                                    .x = static_cast<const kernels::cuda::Bf16*>(x.data),
                                    .x_stride = x.row_stride,
                                    .y = static_cast<kernels::cuda::Bf16*>(y.data),
                                    .y_stride = y.row_stride},
                                   stream);
        if (error != cudaSuccess) {
          std::fprintf(stderr, "train_step_cuda: %s\n", cudaGetErrorString(error));
          std::abort();
        }
      });
}

// What rank 0 prints; of the others their phases.
absl::StatusOr<std::string> Run(LocalRank& rank, const lasp::v1::TrainingSpec& spec,
                                const std::string& folder, const std::string& checkpoint_folder,
                                bool sums_gradients, const bench::Ablation& ablation) {
  LASP_ASSIGN_OR_RETURN(const auto data, BatchSource::Open(spec, {folder},
                                                           {.sp_rank = rank.grid.sp_rank(),
                                                            .sp_size = rank.grid.sp_size(),
                                                            .dp_rank = rank.grid.dp_rank(),
                                                            .dp_size = rank.grid.dp_size()},
                                                           DataSplit::kTrain));
  const DrainRequest drain;
  // Larger than the sums of losses and norms.
  constexpr int64_t kSmallSum = 4096;
  WithoutLargeSums without_sums(rank.world, kSmallSum);
  const bool groups_shard = GroupsShard(spec.parallelism());
  const std::unique_ptr<SequenceParallel> ablated = CreateAblated(ablation, rank);
  LASP_ASSIGN_OR_RETURN(const auto trainer,
                        Trainer::Create({.spec = spec,
                                         .grid = rank.grid,
                                         .backend = rank.backend,
                                         .sp = rank.sp,
                                         .world = sums_gradients ? rank.world : &without_sums,
                                         .shards = groups_shard ? rank.shards : nullptr,
                                         .replicas = groups_shard ? rank.dp : nullptr,
                                         .wrap = rank.wrap,
                                         .train_data = data.get(),
                                         .drain = &drain,
                                         .checkpoint_root = checkpoint_folder,
                                         .dump_directory = {},
                                         .attention = ablated.get()}));
  LASP_ASSIGN_OR_RETURN(const auto checkpoints,
                        OpenCheckpoints(rank, spec, *trainer, checkpoint_folder));
  std::vector<StepResult> results;
  std::vector<double> writing;
  double first_loss = 0;
  double last_loss = 0;
  for (int64_t step = 1; step <= spec.max_steps(); ++step) {
    const bool writes = checkpoints != nullptr && !checkpoints->idle();
    LASP_ASSIGN_OR_RETURN(const StepResult result, trainer->Step(step, checkpoints.get()));
    first_loss = step == 1 ? result.loss : first_loss;
    last_loss = result.loss;
    if (writes) {
      writing.push_back(result.seconds);
    } else if (step > std::min<int64_t>(2, spec.max_steps() - 1)) {
      // The first steps warm up.
      results.push_back(result);
    }
    if (checkpoints != nullptr) {
      checkpoints->AddStall(result.phases[Phase::kCheckpoint]);
      if (result.checkpoint_due && !result.checkpoint_busy) {
        checkpoints->Save(trainer->StateAfter(step));
      }
    }
  }
  if (checkpoints != nullptr) {
    LASP_RETURN_IF_ERROR(checkpoints->SaveLast(trainer->StateAfter(spec.max_steps())));
  }
  if (results.empty()) {
    return absl::FailedPreconditionError("no step but the first two without a checkpoint");
  }
  const auto middle = results.begin() + static_cast<std::ptrdiff_t>(results.size() / 2);
  std::nth_element(results.begin(), middle, results.end(),
                   [](const StepResult& a, const StepResult& b) { return a.seconds < b.seconds; });
  const StepResult& median = *middle;
  if (rank.grid.rank() != 0) {
    return absl::StrFormat(", {%s}", PhasesOf(median));
  }
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  cudaMemGetInfo(&free_bytes, &total_bytes);
  const auto* const peers = dynamic_cast<const PeerCommunicator*>(rank.world);
  // A GPU's.
  const int64_t local_tokens = spec.data().sequence_length() / rank.grid.sp_size();
  const auto tokens = static_cast<double>(local_tokens);
  return absl::StrFormat(
      "{\"benchmark\": \"train_step_cuda\", \"gpus\": %d, \"sp\": %d, \"sp_method\": \"%s\", "
      "\"data_parallel\": \"%s\", "
      "\"tokens_per_gpu\": %.0f, "
      "\"layers\": %d, \"activations\": \"%s\", \"chunk_tokens\": %d, \"macro_chunks\": %d, "
      "\"parameters\": %d, \"step_ms\": %.2f, \"issue_ms\": %.2f, \"tokens_per_second_per_gpu\": "
      "%.0f, \"summed_by_copy_engines\": %s, \"first_loss\": %.4f, \"last_loss\": %.4f, "
      "\"planned_gib\": %.2f, "
      "\"used_gib\": %.2f, \"bill\": \"%s\", %s%s, \"ranks\": [{%s}",
      rank.grid.world_size(), rank.grid.sp_size(),
      lasp::v1::SequenceParallelSpec::Method_Name(spec.parallelism().sequence_parallel().method())
          .substr(kMethodPrefix.size()),
      lasp::v1::DataParallelSpec::Method_Name(spec.parallelism().data_parallel().method())
          .substr(kMethodPrefix.size()),
      tokens, spec.model().layers(),
      lasp::v1::MemorySpec::Activations_Name(spec.memory().activations()),
      trainer->chunks().slice_tokens(), trainer->chunks().count(), trainer->layout().count(),
      median.seconds * 1e3, median.issue_seconds * 1e3, tokens / median.seconds,
      peers != nullptr && peers->copied_bytes() > 0 ? "true" : "false", first_loss, last_loss,
      static_cast<double>(trainer->memory().total()) / (1 << 30),
      static_cast<double>(total_bytes - free_bytes) / (1 << 30), trainer->memory().ToString(),
      PhasesOf(median), CheckpointsOf(checkpoints.get(), std::move(writing)), PhasesOf(median));
}

int Main(lasp::v1::DataParallelSpec::Method data_parallel, const lasp::v1::MemorySpec& memory,
         bool sums_gradients, const bench::Ablation& ablation, int64_t tokens, int layers,
         int steps, int gpus, int sp_size, bool peer_copies, const std::string& checkpoint_folder,
         int64_t interval, const std::string& method_name) {
  auto method = lasp::v1::SequenceParallelSpec::METHOD_LASP;
  if (!lasp::v1::SequenceParallelSpec::Method_Parse(absl::StrCat(kMethodPrefix, method_name),
                                                    &method)) {
    std::fprintf(stderr, "train_step_cuda: no method %s\n", method_name.c_str());
    return 1;
  }
  const std::string checkpoints = checkpoint_folder + "/train-step-cuda";
  if (!checkpoint_folder.empty()) {
    std::filesystem::create_directories(checkpoints);
  }
  const std::string folder = "/tmp/lasp-train-step-" + std::to_string(getpid());
  if (std::system(("mkdir -p " + folder).c_str()) != 0) {
    return 1;
  }
  // Short sequences differ from step to step; of long ones there are two.
  const int64_t sequences = tokens > (1 << 18) ? 2 : 8;
  WriteCorpus(folder + "/corpus.bin", tokens * gpus * sequences + 1);
  lasp::v1::TrainingSpec spec =
      Spec("corpus.bin", tokens, layers, steps, sp_size, gpus / sp_size, interval, method, memory);
  spec.mutable_parallelism()->mutable_data_parallel()->set_method(data_parallel);
  const std::vector<absl::StatusOr<std::string>> results = RunGpuRankProcesses(
      {.sp_size = sp_size,
       .dp_size = gpus / sp_size,
       .timeout = absl::Minutes(5),
       .peer_copies = peer_copies,
       .groups_shard = GroupsShard(spec.parallelism()),
       .streams = spec.memory().activations() == lasp::v1::MemorySpec::ACTIVATIONS_STREAM},
      [&](LocalRank& rank) {
        return Run(rank, spec, folder, checkpoint_folder, sums_gradients, ablation);
      });
  if (!checkpoint_folder.empty()) {
    std::filesystem::remove_all(checkpoints);
  }
  std::remove((folder + "/corpus.bin").c_str());
  rmdir(folder.c_str());
  for (const absl::StatusOr<std::string>& result : results) {
    if (!result.ok()) {
      std::fprintf(stderr, "train_step_cuda: %s\n", result.status().ToString().c_str());
      return 1;
    }
  }
  for (const absl::StatusOr<std::string>& result : results) {
    std::printf("%s", result->c_str());
  }
  std::printf("]}\n");
  return 0;
}

}  // namespace
}  // namespace lasp::worker

int main(int argc, char** argv) {
  const auto data_parallel = lasp::worker::TakeDataParallel(&argc, argv);
  if (!data_parallel.has_value()) {
    std::fprintf(stderr, "train_step_cuda: no such method of data parallelism\n");
    return 2;
  }
  const auto memory = lasp::worker::TakeMemorySpec(&argc, argv);
  if (!memory.has_value()) {
    std::fprintf(stderr, "train_step_cuda: no such activation plan\n");
    return 2;
  }
  const bool sums_gradients = !lasp::worker::TakeNoGradientSync(&argc, argv);
  const auto ablation = lasp::worker::TakeAblation(&argc, argv);
  if (!ablation.has_value()) {
    std::fprintf(stderr, "train_step_cuda: what can be left out is fusion and caching\n");
    return 2;
  }
  const int gpus = argc > 4 ? std::atoi(argv[4]) : 1;
  return lasp::worker::Main(
      *data_parallel, *memory, sums_gradients, *ablation, argc > 1 ? std::atoll(argv[1]) : 32768,
      argc > 2 ? std::atoi(argv[2]) : 16, argc > 3 ? std::atoi(argv[3]) : 12, gpus,
      argc > 5 ? std::atoi(argv[5]) : gpus, argc <= 6 || std::string(argv[6]) != "nccl",
      argc > 7 ? argv[7] : "", argc > 8 ? std::atoll(argv[8]) : 4, argc > 9 ? argv[9] : "LASP");
}
