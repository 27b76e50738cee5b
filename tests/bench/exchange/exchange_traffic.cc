// What a rank sends for a layer of attention, by sequence-parallel method: by the formula, as its
// communicator counts it, and as the kernel has counted it on the rank's TCP sockets.
//
//   exchange_traffic [TOKENS...]
//     lengths of the whole sequence (default 1024 and 4096), over four ranks, a process each
//
// Prints one JSON object. Exit code 1 where a communicator's count is not the formula's, or the
// kernel's differs from it by more than what frames the messages.
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/status_macros.h"
#include "tests/worker/model/model_under_test.h"
#include "tests/worker/parallel/attention_layer.h"
#include "tests/worker/parallel/rank_processes.h"
#include "tests/worker/parallel/sent_by_kernel.h"
#include "tests/worker/parallel/sequence_parallel_methods.h"
#include "tests/worker/parallel/traffic_formulas.h"

namespace lasp::worker {
namespace {

constexpr int kRanks = 4;
constexpr int64_t kHeads = 4;
constexpr int64_t kHeadSize = 64;
// As often a layer's forward and backward are repeated, or layers of a model.
constexpr int kLayers = 8;
// Gloo precedes each message with a header of so many bytes, and announces sends and receives with
// as many.
constexpr int64_t kHeaderBytes = 48;
constexpr int64_t kHeadersAMessage = 3;

struct Sent {
  int64_t formula = 0;
  int64_t counted = 0;
  int64_t beside = 0;  // by the other communicators: gradients and losses
  int64_t by_kernel = 0;
};

// One case: a method, a layer's kind, a length.
struct Case {
  SequenceParallelMethod method;
  bool lrpe = false;
  int64_t tokens = 0;  // of the whole sequence

  AttentionShape shape() const {
    return {.batch = 1,
            .tokens = tokens / kRanks,
            .heads = kHeads,
            .head_size = kHeadSize,
            .lrpe = lrpe,
            .slopes = {},
            .theta = {}};
  }

  bool tensor_parallel() const {
    return method.method == lasp::v1::SequenceParallelSpec::METHOD_MEGATRON_SP;
  }
};

// What `work` makes this rank send.
absl::StatusOr<Sent> Count(LocalRank& rank, const std::function<absl::Status()>& work) {
  const auto beside = [&] {
    return rank.world->counters().sent_bytes + rank.dp->counters().sent_bytes;
  };
  LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
  const Sent before{
      .counted = rank.sp->counters().sent_bytes, .beside = beside(), .by_kernel = SentByKernel()};
  LASP_RETURN_IF_ERROR(work());
  return Sent{.counted = rank.sp->counters().sent_bytes - before.counted,
              .beside = beside() - before.beside,
              .by_kernel = SentByKernel() - before.by_kernel};
}

absl::StatusOr<Sent> CountAttention(const Case& counted, LocalRank& rank) {
  const AttentionShape shape = counted.shape();
  const auto attention = counted.method.create(rank.backend, rank.sp);
  LASP_ASSIGN_OR_RETURN(auto layer, AttentionLayer::Create(shape, attention.get(), rank.backend));
  LASP_ASSIGN_OR_RETURN(Sent sent, Count(rank, [&]() -> absl::Status {
                          for (int i = 0; i < kLayers; ++i) {
                            LASP_RETURN_IF_ERROR(layer->Forward());
                          }
                          for (int i = 0; i < kLayers; ++i) {
                            LASP_RETURN_IF_ERROR(layer->Backward());
                          }
                          return attention->Finish();
                        }));
  for (const bool backward : {false, true}) {
    sent.formula +=
        kLayers * SentBytesFormula(counted.method.method, shape, kRanks, rank.sp->rank(), backward);
  }
  return sent;
}

// Of whole layers, which share out more than the attention.
absl::StatusOr<Sent> CountModel(const Case& counted, LocalRank& rank) {
  const ModelConfig config{.layers = kLayers,
                           .hidden_size = kHeads * kHeadSize,
                           .heads = kHeads,
                           .glu_size = kHeads * kHeadSize,
                           .vocab_size = 16};
  const int64_t slice = counted.tokens / kRanks;
  LASP_ASSIGN_OR_RETURN(const auto model,
                        ModelUnderTest::Create(config, {.sequences = 1, .tokens = slice}, rank,
                                               {.method = counted.method}));
  model->SetParameters(model->RandomParameters(7, 0.02));
  const RandomSequences data = MakeSequences(1, counted.tokens, config.vocab_size, 3);
  // A number a token, which the gated norm sums over the ranks in each direction.
  LASP_ASSIGN_OR_RETURN(const auto memory, rank.backend->Allocate(counted.tokens * 4));
  const Tensor numbers{memory->data(), DType::kFloat32, counted.tokens, 1, 1};
  LASP_ASSIGN_OR_RETURN(const Sent sums,
                        Count(rank, [&] { return rank.sp->AllReduceSum(numbers).Wait(); }));
  LASP_ASSIGN_OR_RETURN(Sent sent,
                        Count(rank, [&] { return model->Run(data.ids, data.labels).status(); }));
  // N D (P - 1) / P elements a gather or scatter: four in the forward pass, six in the backward
  // pass.
  const int64_t gather = counted.tokens * config.hidden_size * (kRanks - 1) / kRanks * 4;
  sent.formula = kLayers * (10 * gather + 2 * sums.counted);
  return sent;
}

std::string ToText(const Sent& sent) {
  return absl::StrJoin({sent.formula, sent.counted, sent.beside, sent.by_kernel}, " ");
}

Sent FromText(const std::string& text) {
  Sent sent;
  const std::vector<std::string> fields = absl::StrSplit(text, ' ');
  int64_t* const into[] = {&sent.formula, &sent.counted, &sent.beside, &sent.by_kernel};
  for (size_t i = 0; i < fields.size(); ++i) {
    if (!absl::SimpleAtoi(fields[i], into[i])) {
      *into[i] = -1;
    }
  }
  return sent;
}

// How many messages all ranks send at most.
int64_t MostMessages(const Case& counted) {
  if (counted.tensor_parallel()) {
    // Each gather or scatter is one for each pair of ranks, a sum two. Beside the layers' there are
    // the loss, its labels' number, and the gradients, in a bucket each at most.
    constexpr int64_t kPairs = int64_t{kRanks} * (kRanks - 1);
    return kPairs * (kLayers * (10 + 2 * 2) + 2 * (2 + 2 + kLayers));
  }
  return kLayers * MessagesFormula(counted.method.method, counted.shape(), kRanks, kHeads);
}

// {"method": ..., "ranks": [...]}; what does not hold goes to `wrong`.
absl::StatusOr<std::string> Run(const Case& counted, std::vector<std::string>* wrong) {
  const auto results =
      RunRankProcesses({.ranks = kRanks}, [&](LocalRank& rank) -> absl::StatusOr<std::string> {
        LASP_ASSIGN_OR_RETURN(const Sent sent, counted.tensor_parallel()
                                                   ? CountModel(counted, rank)
                                                   : CountAttention(counted, rank));
        return ToText(sent);
      });
  Sent all;
  std::vector<std::string> ranks;
  for (const absl::StatusOr<std::string>& result : results) {
    LASP_RETURN_IF_ERROR(result.status());
    const Sent sent = FromText(*result);
    all.formula += sent.formula;
    all.counted += sent.counted;
    all.beside += sent.beside;
    all.by_kernel += sent.by_kernel;
    if (sent.counted != sent.formula) {
      wrong->push_back(absl::StrFormat("%s, %d tokens: a rank counts %d bytes, its formula says %d",
                                       counted.method.name, counted.tokens, sent.counted,
                                       sent.formula));
    }
    ranks.push_back(
        absl::StrFormat("{\"formula\": %d, \"counted\": %d, \"beside\": %d, \"by_kernel\": %d}",
                        sent.formula, sent.counted, sent.beside, sent.by_kernel));
  }
  const int64_t framing = all.by_kernel - all.counted - all.beside;
  const int64_t most_framing = MostMessages(counted) * kHeadersAMessage * kHeaderBytes;
  if (framing < 0 || framing > most_framing) {
    wrong->push_back(absl::StrFormat(
        "%s, %d tokens: the kernel has sent %d bytes more than was counted, %d at most frame it",
        counted.method.name, counted.tokens, framing, most_framing));
  }
  return absl::StrFormat("{\"method\": \"%s\", \"lrpe\": %s, \"tokens\": %d, \"ranks\": [%s]}",
                         counted.method.name, counted.lrpe ? "true" : "false", counted.tokens,
                         absl::StrJoin(ranks, ", "));
}

int Main(const std::vector<int64_t>& lengths) {
  std::vector<std::string> cases;
  std::vector<std::string> wrong;
  for (const SequenceParallelMethod& method : EverySequenceParallelMethod()) {
    for (const bool lrpe : {false, true}) {
      for (const int64_t tokens : lengths) {
        const Case counted{.method = method, .lrpe = lrpe, .tokens = tokens};
        if (counted.tensor_parallel() && lrpe) {
          continue;  // the first layer of the model that was counted has it
        }
        const absl::StatusOr<std::string> said = Run(counted, &wrong);
        if (!said.ok()) {
          std::fprintf(stderr, "exchange_traffic: %s\n", said.status().ToString().c_str());
          return 1;
        }
        cases.push_back(*said);
      }
    }
  }
  std::printf(
      "{\"benchmark\": \"exchange_traffic\", \"ranks\": %d, \"heads\": %d, \"head_size\": %d, "
      "\"layers\": %d, \"cases\": [\n%s]}\n",
      kRanks, static_cast<int>(kHeads), static_cast<int>(kHeadSize), kLayers,
      absl::StrJoin(cases, ",\n").c_str());
  for (const std::string& one : wrong) {
    std::fprintf(stderr, "exchange_traffic: %s\n", one.c_str());
  }
  return wrong.empty() ? 0 : 1;
}

}  // namespace
}  // namespace lasp::worker

int main(int argc, char** argv) {
  std::vector<int64_t> lengths;
  for (int i = 1; i < argc; ++i) {
    int64_t tokens = 0;
    if (!absl::SimpleAtoi(argv[i], &tokens) || tokens < 4 || tokens % 4 != 0) {
      std::fprintf(stderr, "exchange_traffic: expected lengths that four divides, not %s\n",
                   argv[i]);
      return 2;
    }
    lengths.push_back(tokens);
  }
  return lasp::worker::Main(lengths.empty() ? std::vector<int64_t>{1024, 4096} : lengths);
}
