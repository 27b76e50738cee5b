// Does the exchange of states hide under the intra-chunk product?
//
// Four ranks, each a thread with one core's worth of kernels, run one attention layer's forward. A
// hop is given a delay such that three of them last as long as the intra-chunk product does with
// all four ranks running. The forward must then take at most 1.15 times that product, plus the
// local state before it and the q KV_in pass after it, each measured without delay. A schedule that
// waits for the state before it computes is run beside it and must fail the same bound.
//
// Prints one JSON object. Exit code 1 where the bound does not hold or does not tell the two apart.
#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "tests/worker/parallel/attention_layer.h"
#include "tests/worker/parallel/forwarding_communicator.h"
#include "tests/worker/parallel/local_ranks.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {
namespace {

constexpr int kRanks = 4;
constexpr int kHops = kRanks - 1;
constexpr int kRepeats = 7;
constexpr double kAllowance = 1.15;

using Clock = std::chrono::steady_clock;

// A network with latency: a receive is complete only some time after the message is there.
class DelayedCommunicator : public ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;

  void set_delay(double seconds) { delay_ = std::chrono::duration<double>(seconds); }

  Operation Receive(Tensor data, int peer) override {
    Operation received = inner().Receive(data, peer);
    if (delay_.count() == 0) {
      return received;
    }
    return inner().Run([this] {
      std::this_thread::sleep_for(delay_);
      return absl::OkStatus();
    });
  }

 private:
  std::chrono::duration<double> delay_{0};
};

// The state first, then everything else: what LASP's reference implementation does.
absl::Status SerialisedForward(AttentionLayer& layer, Backend& backend, Communicator& sp,
                               Tensor local) {
  const AttentionInputs& inputs = layer.inputs();
  const AttentionMemory& memory = layer.memory();
  if (sp.rank() > 0) {
    LASP_RETURN_IF_ERROR(sp.Receive(memory.state_in, sp.rank() - 1).Wait());
  }
  backend.LocalState(layer.shape(), inputs.k, inputs.v, local, memory.saved_states);
  backend.BeginOutput(layer.shape(), layer.tensors());
  backend.EndOutput(layer.shape(), layer.tensors());
  if (sp.rank() < sp.size() - 1) {
    backend.StateHop(layer.shape(), memory.state_in, local, local);
    return sp.Send(local, sp.rank() + 1).Wait();
  }
  return absl::OkStatus();
}

struct Times {
  double local = 0;
  double intra = 0;
  double inter = 0;
  double forward = 0;
  double serialised = 0;
};

// Seconds until the last rank has finished `work`, all having started together: the median.
class Stopwatch {
 public:
  double Measure(int rank, const std::function<void()>& work) {
    for (int repeat = -1; repeat < kRepeats; ++repeat) {
      barrier_.arrive_and_wait();
      const Clock::time_point begin = Clock::now();
      work();
      barrier_.arrive_and_wait();
      if (rank == 0 && repeat >= 0) {
        seconds_[repeat] = std::chrono::duration<double>(Clock::now() - begin).count();
      }
    }
    if (rank == 0) {
      std::nth_element(seconds_, seconds_ + kRepeats / 2, seconds_ + kRepeats);
      median_ = seconds_[kRepeats / 2];
    }
    barrier_.arrive_and_wait();
    return median_;
  }

 private:
  std::barrier<> barrier_{kRanks};
  double seconds_[kRepeats] = {};
  double median_ = 0;
};

absl::Status RunRankOfBenchmark(LocalRank& rank, int64_t tokens, Stopwatch& stopwatch,
                                Times* times) {
  DelayedCommunicator sp(rank.sp);
  const auto lasp = CreateLasp(rank.backend, &sp);
  const AttentionShape shape{.batch = 1,
                             .tokens = tokens,
                             .heads = 4,
                             .head_size = 64,
                             .lrpe = false,
                             .slopes = {},
                             .theta = {}};
  LASP_ASSIGN_OR_RETURN(auto layer, AttentionLayer::Create(shape, lasp.get(), rank.backend));
  LASP_ASSIGN_OR_RETURN(
      Arena arena, Arena::Create(*rank.backend, shape.state_matrix_rows() * shape.head_size * 4));
  const Tensor local = arena.Take(MemoryUse::kStates, DType::kFloat32,
                                  layer->shape().state_matrix_rows(), shape.head_size);
  const int place = rank.grid.rank();
  Backend& backend = *rank.backend;
  const AttentionInputs& inputs = layer->inputs();
  const AttentionMemory& memory = layer->memory();
  absl::Status status;
  const auto keep = [&status](const absl::Status& next) {
    if (status.ok()) {
      status = next;
    }
  };
  Times measured;
  measured.local = stopwatch.Measure(place, [&] {
    backend.LocalState(layer->shape(), inputs.k, inputs.v, local, memory.saved_states);
  });
  measured.intra =
      stopwatch.Measure(place, [&] { backend.BeginOutput(layer->shape(), layer->tensors()); });
  measured.inter =
      stopwatch.Measure(place, [&] { backend.EndOutput(layer->shape(), layer->tensors()); });
  sp.set_delay(measured.intra / kHops);
  measured.forward = stopwatch.Measure(place, [&] {
    keep(layer->Forward());
    keep(lasp->Finish());
  });
  measured.serialised =
      stopwatch.Measure(place, [&] { keep(SerialisedForward(*layer, backend, sp, local)); });
  if (place == 0) {
    *times = measured;
  }
  return status;
}

int Main(int64_t tokens) {
  Stopwatch stopwatch;
  Times times;
  const std::vector<absl::Status> statuses = RunLocalRanks(
      {.sp_size = kRanks},
      [&](LocalRank& rank) { return RunRankOfBenchmark(rank, tokens, stopwatch, &times); });
  for (const absl::Status& status : statuses) {
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      return 2;
    }
  }
  const double bound = kAllowance * times.intra + times.local + times.inter;
  const bool holds = times.forward <= bound;
  const bool tells = times.serialised > bound;
  std::printf(
      "{\"benchmark\": \"overlap\", \"ranks\": %d, \"tokens_per_rank\": %lld, "
      "\"local_state_seconds\": %.6f, \"intra_seconds\": %.6f, \"inter_seconds\": %.6f, "
      "\"hop_delay_seconds\": %.6f, \"forward_seconds\": %.6f, \"bound_seconds\": %.6f, "
      "\"ratio\": %.4f, \"serialised_seconds\": %.6f, \"serialised_ratio\": %.4f, "
      "\"holds\": %s}\n",
      kRanks, static_cast<long long>(tokens), times.local, times.intra, times.inter,
      times.intra / kHops, times.forward, bound, times.forward / bound, times.serialised,
      times.serialised / bound, holds && tells ? "true" : "false");
  return holds && tells ? 0 : 1;
}

}  // namespace
}  // namespace lasp::worker

int main(int argc, char** argv) {
  return lasp::worker::Main(argc > 1 ? std::atoll(argv[1]) : 16384);
}
