// How long the exchange of states takes, by method, over links of a given latency and bandwidth.
//
//   exchange_cost RANKS LATENCY_MS MEGABYTES_PER_SECOND HEADS LAYERS COMPUTE_MS
//     ranks are processes that speak through SlowLinks; a layer's state is HEADS x 64 x 64 in fp32,
//     which ALL_SCAN cuts in four (or a block a head, where there are fewer)
//
// Of each method: one exchange forward and one backward, from when all ranks have their local
// states until the last has what it waits for; and a step of LAYERS layers, forward and backward,
// each of which computes for COMPUTE_MS beside its exchange. Computing is sleeping, so that ranks
// that share cores do not wait for each other. Prints one JSON object.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"
#include "tests/bench/exchange/slow_links.h"
#include "tests/worker/parallel/rank_processes.h"
#include "worker/device/arena.h"
#include "worker/parallel/state_passing.h"

namespace lasp::worker {
namespace {

constexpr int64_t kHeadSize = 64;
constexpr int64_t kScanBlocks = 4;
constexpr int kExchanges = 5;
constexpr int kSteps = 3;
// The tokens of a rank decide by what power of the decay a hop multiplies, and no more.
constexpr int64_t kTokens = 1024;

struct Arguments {
  int ranks = 0;
  double latency_ms = 0;
  double megabytes_per_second = 0;
  int64_t heads = 0;
  int layers = 0;
  double compute_ms = 0;

  int64_t state_bytes() const { return heads * kHeadSize * kHeadSize * 4; }

  int64_t scan_blocks() const { return std::min(kScanBlocks, heads); }
};

struct Method {
  const char* name;
  std::unique_ptr<StatePassing> (*create)(Backend*, Communicator*, const Arguments&);
};

constexpr Method kMethods[] = {
    {"LASP", [](Backend* backend, Communicator* sp,
                const Arguments&) { return CreateRingPassing(backend, sp); }},
    {"LASP2", [](Backend* backend, Communicator* sp,
                 const Arguments&) { return CreateGatherPassing(backend, sp); }},
    {"ALL_SCAN",
     [](Backend* backend, Communicator* sp, const Arguments& arguments) {
       return CreateScanPassing(backend, sp, arguments.state_bytes() / arguments.scan_blocks());
     }},
};

// A method's exchanges on one rank.
class Exchanges {
 public:
  static absl::StatusOr<std::unique_ptr<Exchanges>> Create(const Method& method, LocalRank* rank,
                                                           const Arguments& arguments) {
    auto made = std::unique_ptr<Exchanges>(new Exchanges(method, rank, arguments));
    Arena plan;
    made->TakeMemory(plan);
    LASP_ASSIGN_OR_RETURN(made->arena_, Arena::Create(*rank->backend, plan.used_bytes()));
    made->TakeMemory(made->arena_);
    return made;
  }

  // Milliseconds from a common beginning until this rank has its state, or its gradient.
  absl::StatusOr<double> TimeOne(bool gradient) {
    LASP_ASSIGN_OR_RETURN(const absl::Duration begin, BeginTogether());
    LASP_RETURN_IF_ERROR(Start(gradient));
    LASP_RETURN_IF_ERROR(ends_.received.Wait());
    const absl::Duration end = SystemClock().Monotonic();
    LASP_RETURN_IF_ERROR(Finish());
    return absl::ToDoubleMilliseconds(end - begin);
  }

  // Of a step, likewise.
  absl::StatusOr<double> TimeStep() {
    LASP_ASSIGN_OR_RETURN(const absl::Duration begin, BeginTogether());
    for (const bool gradient : {false, true}) {
      for (int layer = 0; layer < arguments_.layers; ++layer) {
        LASP_RETURN_IF_ERROR(Start(gradient));
        absl::SleepFor(absl::Milliseconds(1) * arguments_.compute_ms);
        LASP_RETURN_IF_ERROR(ends_.received.Wait());
      }
    }
    const absl::Duration end = SystemClock().Monotonic();
    LASP_RETURN_IF_ERROR(Finish());
    return absl::ToDoubleMilliseconds(end - begin);
  }

 private:
  Exchanges(const Method& method, LocalRank* rank, const Arguments& arguments)
      : rank_(*rank),
        arguments_(arguments),
        passing_(method.create(rank->backend, rank->sp, arguments)) {
    shape_.batch = 1;
    shape_.tokens = kTokens;
    shape_.heads = arguments.heads;
    shape_.head_size = kHeadSize;
  }

  void TakeMemory(Arena& arena) {
    shape_.slopes = arena.Take(MemoryUse::kWeights, DType::kFloat64, 1, shape_.heads);
    in_ = arena.Take(MemoryUse::kStates, rank_.backend->accumulation_type(),
                     shape_.state_matrix_rows(), shape_.head_size);
    begin_ = arena.Take(MemoryUse::kWorkspace, DType::kFloat64, 1, 1);
    passing_->TakeScratch(shape_, arena);
  }

  // All ranks return the same moment, soon after it has come.
  absl::StatusOr<absl::Duration> BeginTogether() {
    LASP_RETURN_IF_ERROR(rank_.world->Barrier().Wait());
    double seconds = 0;
    if (rank_.grid.rank() == 0) {
      const absl::Duration ahead =
          absl::Milliseconds(20) + absl::Milliseconds(4) * arguments_.latency_ms;
      seconds = absl::ToDoubleSeconds(SystemClock().Monotonic() + ahead);
      rank_.backend->CopyFromHost(&seconds, begin_);
    }
    LASP_RETURN_IF_ERROR(rank_.world->Broadcast(begin_, 0).Wait());
    rank_.backend->CopyToHost(begin_, &seconds);
    LASP_RETURN_IF_ERROR(rank_.backend->Synchronize());
    const absl::Duration begin = absl::Seconds(1) * seconds;
    absl::SleepFor(begin - SystemClock().Monotonic());
    return begin;
  }

  absl::Status Start(bool gradient) {
    // The one before may still be reading the local state.
    LASP_RETURN_IF_ERROR(ends_.read.Wait());
    const FlowOrder order(*rank_.sp, gradient);
    ends_ = passing_->Start(shape_, {.gradient = gradient,
                                     .slices = SequenceSlices{}.OrEven(kTokens, rank_.sp->size()),
                                     .documents = {},
                                     .local = passing_->Local(shape_),
                                     .in = order.first() ? Tensor{} : in_,
                                     .in_place = in_,
                                     .before = {}});
    return absl::OkStatus();
  }

  absl::Status Finish() {
    LASP_RETURN_IF_ERROR(ends_.read.Wait());
    return ends_.sent.Wait();
  }

  LocalRank& rank_;
  const Arguments arguments_;
  const std::unique_ptr<StatePassing> passing_;
  AttentionShape shape_;
  Arena arena_;
  Tensor in_;
  Tensor begin_;
  StateFlowEnds ends_;
};

// Of one rank: the times of forwards, backwards and steps, one line each.
absl::StatusOr<std::string> Time(const Method& method, const Arguments& arguments,
                                 LocalRank& rank) {
  LASP_ASSIGN_OR_RETURN(const auto exchanges, Exchanges::Create(method, &rank, arguments));
  // Connections that have been quiet begin slowly.
  LASP_RETURN_IF_ERROR(exchanges->TimeOne(false).status());
  std::vector<double> times[3];
  for (int i = 0; i < kExchanges; ++i) {
    for (const bool gradient : {false, true}) {
      LASP_ASSIGN_OR_RETURN(const double time, exchanges->TimeOne(gradient));
      times[gradient ? 1 : 0].push_back(time);
    }
  }
  for (int i = 0; i < kSteps; ++i) {
    LASP_ASSIGN_OR_RETURN(const double time, exchanges->TimeStep());
    times[2].push_back(time);
  }
  std::vector<std::string> lines;
  for (const std::vector<double>& list : times) {
    lines.push_back(absl::StrJoin(list, " "));
  }
  return absl::StrJoin(lines, "\n");
}

// The slowest rank's time of each repetition, of one line.
std::string Slowest(const std::vector<std::string>& ranks, size_t line) {
  std::vector<double> slowest;
  for (const std::string& rank : ranks) {
    const std::vector<std::string> lines = absl::StrSplit(rank, '\n');
    const std::vector<std::string> times = absl::StrSplit(lines[line], ' ');
    slowest.resize(times.size());
    for (size_t i = 0; i < times.size(); ++i) {
      double time = 0;
      (void)absl::SimpleAtod(times[i], &time);
      slowest[i] = std::max(slowest[i], time);
    }
  }
  return absl::StrJoin(slowest, ", ", [](std::string* out, double time) {
    absl::StrAppendFormat(out, "%.2f", time);
  });
}

absl::StatusOr<std::string> Run(const Method& method, const Arguments& arguments) {
  std::unique_ptr<bench::SlowLinks> links;
  const auto route =
      [&](int rank,
          const std::vector<std::string>& addresses) -> absl::StatusOr<std::vector<std::string>> {
    if (links == nullptr) {
      LASP_ASSIGN_OR_RETURN(
          links, bench::SlowLinks::Create(
                     arguments.ranks, {.latency = absl::Milliseconds(1) * arguments.latency_ms,
                                       .bytes_per_second = arguments.megabytes_per_second * 1e6}));
    }
    return links->Route(rank, addresses);
  };
  std::vector<std::string> ranks;
  for (const absl::StatusOr<std::string>& result :
       RunRankProcesses({.ranks = arguments.ranks, .route = route},
                        [&](LocalRank& rank) { return Time(method, arguments, rank); })) {
    LASP_RETURN_IF_ERROR(result.status());
    ranks.push_back(*result);
  }
  return absl::StrFormat("\"%s\": {\"forward_ms\": [%s], \"backward_ms\": [%s], \"step_ms\": [%s]}",
                         method.name, Slowest(ranks, 0), Slowest(ranks, 1), Slowest(ranks, 2));
}

int Main(const Arguments& arguments) {
  std::vector<std::string> methods;
  for (const Method& method : kMethods) {
    const absl::StatusOr<std::string> said = Run(method, arguments);
    if (!said.ok()) {
      std::fprintf(stderr, "exchange_cost: %s\n", said.status().ToString().c_str());
      return 1;
    }
    methods.push_back(*said);
  }
  std::printf(
      "{\"benchmark\": \"exchange_cost\", \"ranks\": %d, \"latency_ms\": %g, "
      "\"megabytes_per_second\": %g, \"state_bytes\": %lld, \"scan_blocks\": %lld, \"layers\": %d, "
      "\"compute_ms\": %g, \"methods\": {%s}}\n",
      arguments.ranks, arguments.latency_ms, arguments.megabytes_per_second,
      static_cast<long long>(arguments.state_bytes()),
      static_cast<long long>(arguments.scan_blocks()), arguments.layers, arguments.compute_ms,
      absl::StrJoin(methods, ", ").c_str());
  return 0;
}

}  // namespace
}  // namespace lasp::worker

int main(int argc, char** argv) {
  lasp::worker::Arguments arguments;
  if (argc != 7 || !absl::SimpleAtoi(argv[1], &arguments.ranks) || arguments.ranks < 2 ||
      !absl::SimpleAtod(argv[2], &arguments.latency_ms) || arguments.latency_ms < 0 ||
      !absl::SimpleAtod(argv[3], &arguments.megabytes_per_second) ||
      arguments.megabytes_per_second <= 0 || !absl::SimpleAtoi(argv[4], &arguments.heads) ||
      arguments.heads < 1 || !absl::SimpleAtoi(argv[5], &arguments.layers) ||
      !absl::SimpleAtod(argv[6], &arguments.compute_ms)) {
    std::fprintf(stderr,
                 "usage: exchange_cost RANKS LATENCY_MS MEGABYTES_PER_SECOND HEADS LAYERS "
                 "COMPUTE_MS\n");
    return 2;
  }
  return lasp::worker::Main(arguments);
}
