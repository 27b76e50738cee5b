// What ranks of one host cost each other: a hop of the state, alone and while the
// GPUs multiply matrices; attention beside the reduction of gradients; a layer of LASP against the
// same layer without sequence parallelism. Prints JSON.
//   exchange_cuda GPUS [TOKENS]
// 131,072 tokens a GPU; 16 heads of 128.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/cuda/bfloat16.h"
#include "kernels/decay_slopes.h"
#include "proto/rpc/status_macros.h"
#include "tests/bench/gpu_timer.h"
#include "tests/worker/parallel/gpu_rank_processes.h"
#include "worker/device/arena.h"
#include "worker/device/cuda_backend.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {
namespace {

using bench::Check;

constexpr int64_t kHeads = 16;
constexpr int64_t kHeadSize = 128;
constexpr int64_t kWidth = kHeads * kHeadSize;
constexpr int kLayers = 16;

double Quantile(std::vector<double> values, double quantile) {
  const auto place = values.begin() +
                     static_cast<std::ptrdiff_t>(quantile * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), place, values.end());
  return *place;
}

cudaStream_t StreamOf(Backend* backend) { return static_cast<CudaBackend*>(backend)->stream(); }

// Marks of one stream, read when all has ended.
class Marks {
 public:
  explicit Marks(cudaStream_t stream) : stream_(stream) {}

  ~Marks() {
    for (cudaEvent_t const event : events_) {
      (void)cudaEventDestroy(event);
    }
  }

  Marks(const Marks&) = delete;
  Marks& operator=(const Marks&) = delete;

  void Add() {
    cudaEvent_t event = nullptr;
    Check(cudaEventCreate(&event), "cudaEventCreate");
    Check(cudaEventRecord(event, stream_), "cudaEventRecord");
    events_.push_back(event);
  }

  // Between the first and the second, the second and the third, and so on.
  std::vector<double> Milliseconds() const {
    std::vector<double> times;
    times.reserve(events_.size());
    Check(cudaEventSynchronize(events_.back()), "the timed work");
    for (size_t i = 1; i < events_.size(); ++i) {
      float time = 0;
      Check(cudaEventElapsedTime(&time, events_[i - 1], events_[i]), "cudaEventElapsedTime");
      times.push_back(static_cast<double>(time));
    }
    return times;
  }

 private:
  const cudaStream_t stream_;
  std::vector<cudaEvent_t> events_;
};

// A layer's attention with random inputs, as the engine computes it.
class Layer {
 public:
  static absl::StatusOr<std::unique_ptr<Layer>> Create(int64_t tokens, int64_t index,
                                                       Backend* backend, Communicator* sp) {
    auto layer = std::unique_ptr<Layer>(new Layer(tokens, backend, sp));
    Arena plan;
    layer->TakeMemory(plan);
    LASP_ASSIGN_OR_RETURN(layer->arena_, Arena::Create(*backend, plan.used_bytes()));
    layer->TakeMemory(layer->arena_);
    LASP_RETURN_IF_ERROR(sp->Register(layer->arena_.whole()));
    std::vector<double> slopes(kHeads);
    kernels::DecaySlopes(index, kLayers, kHeads, slopes.data());
    backend->CopyFromHost(slopes.data(), layer->shape_.slopes);
    std::vector<kernels::cuda::Bf16> values(static_cast<size_t>(tokens * kWidth));
    std::mt19937 random(static_cast<unsigned>(sp->rank()));
    for (size_t i = 0; i < values.size(); ++i) {
      // Enough that are random: the kernels' time does not depend on values.
      values[i] = i < 100'000 ? kernels::cuda::Bf16(static_cast<float>(random() % 2001) / 1000 - 1)
                              : values[i % 99'991];
    }
    for (const Tensor tensor : {layer->inputs_.q, layer->inputs_.k, layer->inputs_.v}) {
      backend->CopyFromHost(values.data(), tensor);
    }
    return layer;
  }

  absl::Status ForwardAndBackward() {
    LASP_RETURN_IF_ERROR(attention_->BeginForward(shape_, inputs_, memory_));
    LASP_RETURN_IF_ERROR(attention_->EndForward(shape_, inputs_, memory_, output_));
    return attention_->Backward(shape_, inputs_, memory_, output_, gradients_);
  }

 private:
  Layer(int64_t tokens, Backend* backend, Communicator* sp)
      : backend_(*backend), attention_(CreateLasp(backend, sp)) {
    shape_.batch = 1;
    shape_.tokens = tokens;
    shape_.heads = kHeads;
    shape_.head_size = kHeadSize;
  }

  void TakeMemory(Arena& arena) {
    const auto take = [&] {
      return arena.Take(MemoryUse::kActivations, backend_.activation_type(), shape_.tokens, kWidth);
    };
    shape_.slopes = arena.Take(MemoryUse::kWeights, DType::kFloat64, 1, kHeads);
    inputs_ = {.q = take(), .k = take(), .v = take()};
    output_ = take();
    gradients_ = {.q = take(), .k = take(), .v = take(), .theta = {}};
    memory_ = attention_->TakeMemory(shape_, arena);
    attention_->TakeScratch(shape_, arena);
    const int64_t bytes = backend_.WorkspaceBytes(
        {.rows = shape_.tokens, .hidden_size = kWidth, .attention = shape_});
    const Tensor workspace = arena.Take(MemoryUse::kWorkspace, DType::kInt32, 1, (bytes + 3) / 4);
    if (!workspace.empty()) {
      backend_.UseWorkspace(workspace);
    }
  }

  Backend& backend_;
  const std::unique_ptr<SequenceParallel> attention_;
  AttentionShape shape_;
  Arena arena_;
  AttentionInputs inputs_;
  AttentionMemory memory_;
  Tensor output_;
  AttentionGradients gradients_;
};

// Matrix products, one after the other, beside what the rank's backend does.
class Multiplications {
 public:
  static absl::StatusOr<std::unique_ptr<Multiplications>> Create(int device) {
    auto made = std::make_unique<Multiplications>();
    LASP_ASSIGN_OR_RETURN(made->backend_, CreateCudaBackend({.device = device}));
    const int64_t bytes = made->backend_->WorkspaceBytes({.rows = kSize, .hidden_size = kSize});
    LASP_ASSIGN_OR_RETURN(made->arena_,
                          Arena::Create(*made->backend_, bytes + 3 * kSize * kSize * 2 + 4096));
    made->backend_->UseWorkspace(
        made->arena_.Take(MemoryUse::kWorkspace, DType::kInt32, 1, bytes / 4));
    for (Tensor* const tensor : {&made->a_, &made->b_, &made->c_}) {
      *tensor = made->arena_.Take(MemoryUse::kActivations, DType::kBFloat16, kSize, kSize);
      made->backend_->Fill(0.5, *tensor);
    }
    made->Issue(1);
    LASP_RETURN_IF_ERROR(made->backend_->Synchronize());
    return made;
  }

  // 1.4 ms each.
  void Issue(int count) {
    for (int i = 0; i < count; ++i) {
      backend_->Gemm(false, a_, false, b_, 0, c_);
    }
  }

  bool UnderWay() const { return cudaStreamQuery(backend_->stream()) == cudaErrorNotReady; }

  absl::Status End() { return backend_->Synchronize(); }

 private:
  static constexpr int64_t kSize = 8192;

  std::unique_ptr<CudaBackend> backend_;
  Arena arena_;
  Tensor a_;
  Tensor b_;
  Tensor c_;
};

// Microseconds of hops from GPU 0 to GPU 1, or back: half the way there and back, as the device
// sees it: the host is ahead.
absl::StatusOr<std::vector<double>> Hops(LocalRank& rank, Multiplications* load) {
  constexpr int kBatches = 12;
  constexpr int kRounds = 40;
  constexpr int64_t kStateRows = kHeads * kHeadSize;
  constexpr int64_t kDelay = int64_t{1} << 31;
  LASP_ASSIGN_OR_RETURN(
      Arena arena, Arena::Create(*rank.backend, kStateRows * kHeadSize * 4 + kDelay * 4 + 512));
  const Tensor state = arena.Take(MemoryUse::kStates, DType::kFloat32, kStateRows, kHeadSize);
  const Tensor delay = arena.Take(MemoryUse::kWorkspace, DType::kFloat32, 1, kDelay);
  LASP_RETURN_IF_ERROR(rank.sp->Register(arena.whole()));
  const auto send = [&](int peer) { return rank.sp->SendInto(state, peer, state).Wait(); };
  const auto receive = [&](int peer) { return rank.sp->ReceiveInto(state, peer).Wait(); };
  std::vector<double> hops;
  for (int batch = 0; batch < kBatches; ++batch) {
    LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
    if (load != nullptr) {
      load->Issue(60);
    }
    rank.backend->Fill(batch, delay);
    Marks marks(StreamOf(rank.backend));
    for (int round = 0; round <= kRounds; ++round) {
      if (rank.sp->rank() == 0) {
        LASP_RETURN_IF_ERROR(send(1));
        LASP_RETURN_IF_ERROR(receive(1));
      } else if (rank.sp->rank() == 1) {
        LASP_RETURN_IF_ERROR(receive(0));
        LASP_RETURN_IF_ERROR(send(0));
      }
      marks.Add();
    }
    for (const double time : marks.Milliseconds()) {
      hops.push_back(time * 1e3 / 2);
    }
    if (load != nullptr) {
      if (!load->UnderWay()) {
        return absl::InternalError("the matrix products ended before the hops: not under load");
      }
      LASP_RETURN_IF_ERROR(load->End());
    }
  }
  return hops;
}

// Of one rank; the hops of rank 0 alone.
struct Times {
  std::vector<double> hops;             // microseconds
  std::vector<double> hops_under_load;  // likewise
  std::vector<double> layer;            // milliseconds, by iteration
  std::vector<double> layer_beside_reduction;
};

std::string ToText(const Times& times) {
  std::string text;
  for (const auto* const list :
       {&times.hops, &times.hops_under_load, &times.layer, &times.layer_beside_reduction}) {
    absl::StrAppend(&text, absl::StrJoin(*list, " "), "\n");
  }
  return text;
}

Times FromText(const std::string& text) {
  Times times;
  std::istringstream lines(text);
  for (auto* const list :
       {&times.hops, &times.hops_under_load, &times.layer, &times.layer_beside_reduction}) {
    std::string line;
    std::getline(lines, line);
    std::istringstream values(line);
    for (double value = 0; values >> value;) {
      list->push_back(value);
    }
  }
  return times;
}

// Forward and backward, all ranks from a barrier on.
absl::Status TimeLayer(LocalRank& rank, Layer& layer, std::vector<double>* times) {
  constexpr int kIterations = 30;
  for (int i = 0; i < kIterations; ++i) {
    LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
    Marks marks(StreamOf(rank.backend));
    marks.Add();
    LASP_RETURN_IF_ERROR(layer.ForwardAndBackward());
    marks.Add();
    times->push_back(marks.Milliseconds()[0]);
  }
  times->erase(times->begin(), times->begin() + 5);
  return rank.backend->Synchronize();
}

// The same while gradients are summed over all ranks the whole time.
absl::Status TimeBesideReduction(LocalRank& rank, Layer& layer, std::vector<double>* times) {
  constexpr int64_t kGradients = int64_t{960} << 20;
  constexpr int64_t kBucket = int64_t{15} << 20;
  constexpr int kRepetitions = 6;
  constexpr int kLayersBeside = 3;
  LASP_ASSIGN_OR_RETURN(Arena arena, Arena::Create(*rank.backend, kGradients * 4));
  const Tensor gradients = arena.Take(MemoryUse::kGradients, DType::kFloat32, 1, kGradients);
  LASP_RETURN_IF_ERROR(rank.world->Register(arena.whole()));
  for (int repetition = 0; repetition < kRepetitions; ++repetition) {
    LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
    Operation reduction;
    for (int64_t begin = 0; begin < kGradients; begin += kBucket) {
      reduction = rank.world->AllReduceSum(gradients.Columns(begin, kBucket));
    }
    Marks marks(StreamOf(rank.backend));
    for (int i = 0; i < kLayersBeside; ++i) {
      marks.Add();
      LASP_RETURN_IF_ERROR(layer.ForwardAndBackward());
    }
    marks.Add();
    for (const double time : marks.Milliseconds()) {
      times->push_back(time);
    }
    Marks rest(StreamOf(rank.backend));
    rest.Add();
    LASP_RETURN_IF_ERROR(reduction.Wait());
    rest.Add();
    if (rest.Milliseconds()[0] < 0.1) {
      return absl::InternalError("the reduction ended before the layers: not beside them");
    }
  }
  return rank.backend->Synchronize();
}

absl::StatusOr<std::string> Run(LocalRank& rank, int64_t tokens) {
  Times times;
  if (rank.sp->size() > 1) {
    LASP_ASSIGN_OR_RETURN(const auto load, Multiplications::Create(rank.grid.rank()));
    LASP_ASSIGN_OR_RETURN(times.hops, Hops(rank, nullptr));
    LASP_ASSIGN_OR_RETURN(times.hops_under_load, Hops(rank, load.get()));
  }
  // The last layer's heads decay the slowest: its states reach the farthest.
  LASP_ASSIGN_OR_RETURN(const auto layer,
                        Layer::Create(tokens, kLayers - 1, rank.backend, rank.sp));
  LASP_RETURN_IF_ERROR(TimeLayer(rank, *layer, &times.layer));
  LASP_RETURN_IF_ERROR(TimeBesideReduction(rank, *layer, &times.layer_beside_reduction));
  return ToText(times);
}

// The median over iterations of the slowest rank's.
double Slowest(const std::vector<Times>& ranks, std::vector<double> Times::* list) {
  std::vector<double> slowest = ranks[0].*list;
  for (const Times& rank : ranks) {
    for (size_t i = 0; i < slowest.size(); ++i) {
      slowest[i] = std::max(slowest[i], (rank.*list)[i]);
    }
  }
  return Quantile(slowest, 0.5);
}

absl::StatusOr<std::vector<Times>> RunAll(int gpus, int sp_size, bool peer_copies, int64_t tokens) {
  std::vector<Times> times;
  for (const absl::StatusOr<std::string>& result :
       RunGpuRankProcesses({.sp_size = sp_size,
                            .dp_size = gpus / sp_size,
                            .timeout = absl::Minutes(2),
                            .peer_copies = peer_copies},
                           [&](LocalRank& rank) { return Run(rank, tokens); })) {
    LASP_RETURN_IF_ERROR(result.status());
    times.push_back(FromText(*result));
  }
  return times;
}

absl::StatusOr<std::string> Measure(int gpus, bool peer_copies, int64_t tokens) {
  LASP_ASSIGN_OR_RETURN(const std::vector<Times> all, RunAll(gpus, gpus, peer_copies, tokens));
  LASP_ASSIGN_OR_RETURN(const std::vector<Times> single, RunAll(gpus, 1, peer_copies, tokens));
  const double alone = Slowest(single, &Times::layer);
  const double layer = Slowest(all, &Times::layer);
  const double beside = Slowest(single, &Times::layer_beside_reduction);
  return absl::StrFormat(
      "{\"hop_us\": {\"p50\": %.1f, \"p99\": %.1f}, \"hop_under_gemm_us\": {\"p50\": %.1f, "
      "\"p99\": %.1f}, \"layer_ms\": %.3f, \"layer_without_sp_ms\": %.3f, \"layer_ratio\": %.3f, "
      "\"layer_beside_reduction_ms\": %.3f, \"beside_reduction_ratio\": %.3f}",
      Quantile(all[0].hops, 0.5), Quantile(all[0].hops, 0.99),
      Quantile(all[0].hops_under_load, 0.5), Quantile(all[0].hops_under_load, 0.99), layer, alone,
      layer / alone, beside, beside / alone);
}

int Main(int gpus, int64_t tokens) {
  if (gpus < 2) {
    std::printf("{\"benchmark\": \"exchange_cuda\", \"gpus\": %d}\n", gpus);
    return 0;
  }
  const absl::StatusOr<std::string> copies = Measure(gpus, /*peer_copies=*/true, tokens);
  const absl::StatusOr<std::string> nccl = Measure(gpus, /*peer_copies=*/false, tokens);
  for (const absl::Status& status : {copies.status(), nccl.status()}) {
    if (!status.ok()) {
      std::fprintf(stderr, "exchange_cuda: %s\n", status.ToString().c_str());
      return 1;
    }
  }
  std::printf(
      "{\"benchmark\": \"exchange_cuda\", \"gpus\": %d, \"tokens_per_gpu\": %lld, "
      "\"copy_engines\": %s, \"nccl\": %s}\n",
      gpus, static_cast<long long>(tokens), copies->c_str(), nccl->c_str());
  return 0;
}

}  // namespace
}  // namespace lasp::worker

int main(int argc, char** argv) {
  return lasp::worker::Main(argc > 1 ? std::atoi(argv[1]) : 1,
                            argc > 2 ? std::atoll(argv[2]) : 131072);
}
