// Trains TransNormerLLM-1B on one GPU for a few steps on random tokens, and prints one JSON object:
// the tokens a second, where a step's time goes, and the memory. gemm_cuda, run beside it, gives
// the time of the step's matrix products alone.
//
//   training_step_cuda [tokens] [layers]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"
#include "tests/worker/parallel/local_ranks.h"
#include "worker/device/arena.h"
#include "worker/device/cuda_backend.h"
#include "worker/model/transnormer.h"
#include "worker/optim/adamw.h"

namespace lasp::worker {
namespace {

constexpr int kWarmUps = 3;
constexpr int kSteps = 9;

struct Sizes {
  int64_t tokens = 32768;
  int64_t layers = 16;
};

class Bench {
 public:
  Bench(const Sizes& sizes, LocalRank* rank)
      : sizes_(sizes),
        backend_(*rank->backend),
        config_{.layers = sizes.layers,
                .hidden_size = 2048,
                .heads = 16,
                .glu_size = 5632,
                .vocab_size = 64000},
        layout_(config_),
        attention_(CreateLasp(rank->backend, rank->sp)) {
    optimizer_spec_.set_beta1(0.9);
    optimizer_spec_.set_beta2(0.95);
    optimizer_spec_.set_epsilon(1e-8);
    optimizer_spec_.set_weight_decay(0.1);
    optimizer_spec_.set_max_gradient_norm(1);
  }

  absl::Status Run() {
    Arena plan;
    TakeMemory(plan);
    LASP_ASSIGN_OR_RETURN(arena_, Arena::Create(backend_, plan.used_bytes()));
    TakeMemory(arena_);
    std::fprintf(stderr, "%s\n", arena_.bill().ToString().c_str());
    FillParameters();
    FillTokens();
    const absl::Duration begin = SystemClock().Monotonic();
    backend_.Rehearse(true);
    LASP_RETURN_IF_ERROR(ForwardAndBackward());
    LASP_RETURN_IF_ERROR(backend_.Synchronize());
    backend_.Rehearse(false);
    const double rehearsal = absl::ToDoubleSeconds(SystemClock().Monotonic() - begin);
    FillParameters();
    backend_.Fill(0, control_);
    for (int step = 0; step < kWarmUps; ++step) {
      LASP_RETURN_IF_ERROR(Step().status());
    }
    std::vector<double> seconds;
    std::vector<PhaseSeconds> phases;
    for (int step = 0; step < kSteps; ++step) {
      LASP_ASSIGN_OR_RETURN(const double wall, Step());
      seconds.push_back(wall);
      phases.push_back(phases_);
    }
    Print(rehearsal, seconds, phases);
    return absl::OkStatus();
  }

 private:
  // Of control_: the loss, the gradient's sum of squares, and what decides on the update.
  static constexpr int64_t kStepValues = 2;
  static constexpr int64_t kUpdateValues = sizeof(kernels::UpdateControl) / sizeof(double);

  void TakeMemory(Arena& arena) {
    const int64_t count = layout_.count();
    parameters_ = {.masters = arena.Take(MemoryUse::kWeights, DType::kFloat32, 1, count),
                   .weights = arena.Take(MemoryUse::kWeights, DType::kBFloat16, 1, count),
                   .gradients = arena.Take(MemoryUse::kGradients, DType::kFloat32, 1, count)};
    tokens_ = {.ids = arena.Take(MemoryUse::kWorkspace, DType::kInt32, sizes_.tokens, 1),
               .labels = arena.Take(MemoryUse::kWorkspace, DType::kInt32, sizes_.tokens, 1)};
    control_ = arena.Take(MemoryUse::kWorkspace, DType::kFloat64, 1, kStepValues + kUpdateValues);
    model_ = std::make_unique<TransNormer>(config_, MicroBatchShape{1, sizes_.tokens}, &layout_,
                                           parameters_, &backend_, attention_.get(), arena);
    optimizer_ = std::make_unique<AdamW>(optimizer_spec_, &backend_, parameters_.masters,
                                         parameters_.weights, parameters_.gradients,
                                         layout_.Ranges(), arena);
  }

  // Normal deviates of 0.02: a block of them again and again, which is soon made.
  void FillParameters() {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.02F);
    std::vector<float> block(4 << 20);
    for (float& value : block) {
      value = normal(random);
    }
    for (int64_t at = 0; at < layout_.count(); at += static_cast<int64_t>(block.size())) {
      const int64_t size =
          std::min<int64_t>(layout_.count() - at, static_cast<int64_t>(block.size()));
      backend_.CopyFromHost(block.data(), parameters_.masters.Columns(at, size));
    }
    backend_.Convert(parameters_.masters, parameters_.weights);
  }

  void FillTokens() {
    std::mt19937 random(2);
    std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(config_.vocab_size) - 1);
    std::vector<int32_t> ids(static_cast<size_t>(sizes_.tokens));
    for (int32_t& id : ids) {
      id = any(random);
    }
    backend_.CopyFromHost(ids.data(), tokens_.ids);
    std::rotate(ids.begin(), ids.begin() + 1, ids.end());
    backend_.CopyFromHost(ids.data(), tokens_.labels);
  }

  absl::Status ForwardAndBackward() {
    backend_.EnterPhase(Phase::kForward);
    LASP_RETURN_IF_ERROR(model_->ForwardForTraining(tokens_, 1 / static_cast<double>(sizes_.tokens),
                                                    control_.Columns(0, 1), /*adds=*/false));
    backend_.EnterPhase(Phase::kBackward);
    return model_->Backward(tokens_, nullptr);
  }

  // Seconds by the host's clock.
  absl::StatusOr<double> Step() {
    const absl::Duration begin = SystemClock().Monotonic();
    backend_.EnterPhase(Phase::kOther);
    backend_.Fill(0, control_.Columns(0, kStepValues));
    LASP_RETURN_IF_ERROR(ForwardAndBackward());
    backend_.EnterPhase(Phase::kOptimizer);
    backend_.SumOfSquares(parameters_.gradients, control_.Columns(1, 1));
    optimizer_->Update(1e-4, control_.Columns(0, 1), control_.Columns(1, 1),
                       control_.Columns(kStepValues, kUpdateValues));
    backend_.EnterPhase(Phase::kOther);
    LASP_RETURN_IF_ERROR(backend_.Synchronize());
    phases_ = backend_.TakePhaseSeconds();
    const double seconds = absl::ToDoubleSeconds(SystemClock().Monotonic() - begin);
    backend_.CopyToHost(control_.Columns(0, 1), &loss_);
    return seconds;
  }

  static double Median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + kSteps / 2, values.end());
    return values[kSteps / 2];
  }

  void Print(double rehearsal, const std::vector<double>& seconds,
             const std::vector<PhaseSeconds>& phases) const {
    const double step = Median(seconds);
    std::printf(
        "{\"tokens\": %lld, \"parameters\": %lld, \"step_ms\": %.2f, \"tokens_a_second\": "
        "%.0f, \"rehearsal_s\": %.2f, \"loss\": %.4f, \"memory_gib\": %.2f",
        static_cast<long long>(sizes_.tokens),    // NOLINT(google-runtime-int)
        static_cast<long long>(layout_.count()),  // NOLINT(google-runtime-int)
        step * 1e3, static_cast<double>(sizes_.tokens) / step, rehearsal,
        loss_ / static_cast<double>(sizes_.tokens),
        static_cast<double>(arena_.used_bytes()) / (int64_t{1} << 30));
    for (const auto& [name, phase] : {std::pair<const char*, Phase>{"other", Phase::kOther},
                                      {"forward", Phase::kForward},
                                      {"backward", Phase::kBackward},
                                      {"optimizer", Phase::kOptimizer}}) {
      std::vector<double> values;
      values.reserve(phases.size());
      for (const PhaseSeconds& step_phases : phases) {
        values.push_back(step_phases[phase]);
      }
      std::printf(", \"%s_ms\": %.2f", name, 1e3 * Median(values));
    }
    std::printf("}\n");
  }

  const Sizes sizes_;
  Backend& backend_;
  const ModelConfig config_;
  const ParameterLayout layout_;
  lasp::v1::OptimizerSpec optimizer_spec_;
  Arena arena_;
  ParameterTensors parameters_;
  TokenBatch tokens_;
  Tensor control_;
  const std::unique_ptr<SequenceParallel> attention_;
  std::unique_ptr<TransNormer> model_;
  std::unique_ptr<AdamW> optimizer_;
  PhaseSeconds phases_;
  double loss_ = 0;
};

}  // namespace
}  // namespace lasp::worker

int main(int argc, char** argv) {
  using namespace lasp::worker;  // NOLINT(google-build-using-namespace)
  Sizes sizes;
  sizes.tokens = argc > 1 ? std::strtoll(argv[1], nullptr, 10) : sizes.tokens;
  sizes.layers = argc > 2 ? std::strtoll(argv[2], nullptr, 10) : sizes.layers;
  if (sizes.tokens < 1 || sizes.layers < 1) {
    std::fprintf(stderr, "usage: training_step_cuda [tokens] [layers]\n");
    return 2;
  }
  LocalRanksOptions options;
  options.create_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
    return CreateCudaBackend({});
  };
  const absl::Status status =
      RunLocalRanks(options, [&](LocalRank& rank) { return Bench(sizes, &rank).Run(); })[0];
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}
