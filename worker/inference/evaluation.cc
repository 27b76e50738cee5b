#include "worker/inference/evaluation.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"
#include "worker/data/batch.h"

namespace lasp::worker {
namespace {

using lasp::internal::v1::EvaluateRequest;
using lasp::internal::v1::ModelReply;

// Tokens at a time: enough for the largest products, few beside the weights.
constexpr int64_t kRowsAtATime = 4096;
// Side by side: each has a state in every layer.
constexpr int64_t kMostSequences = 16;
constexpr absl::Duration kPartInterval = absl::Milliseconds(250);

// Reads positions [begin, begin + tokens) of shape.sequences sequences from `first` on. Returns how
// many labels count.
absl::StatusOr<int64_t> ReadChunk(const Corpus& corpus, const EvaluationPlan& plan, int64_t first,
                                  int64_t begin, int64_t tokens, std::vector<int32_t>* ids,
                                  std::vector<int32_t>* labels) {
  std::vector<int32_t> stream(static_cast<size_t>(tokens + 1));
  std::fill(ids->begin(), ids->end(), 0);
  std::fill(labels->begin(), labels->end(), kNoLabel);
  const int64_t sequences = static_cast<int64_t>(ids->size()) / tokens;
  int64_t counted = 0;
  for (int64_t i = 0; i < sequences; ++i) {
    const int64_t at = (first + i) * plan.sequence_length + begin;
    const int64_t here = std::min(tokens, plan.labels - at);
    if (here <= 0) {
      break;
    }
    LASP_RETURN_IF_ERROR(corpus.Read(at, here + 1, stream.data()));
    std::copy_n(stream.begin(), here, ids->begin() + i * tokens);
    std::copy_n(stream.begin() + 1, here, labels->begin() + i * tokens);
    counted += here;
  }
  return counted;
}

}  // namespace

absl::StatusOr<EvaluationPlan> PlanEvaluation(int64_t corpus_tokens, int64_t sequence_length,
                                              int64_t max_labels) {
  const int64_t sequences = (corpus_tokens - 1) / sequence_length;
  if (sequences < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the data hold ", corpus_tokens, " tokens, fewer than sequence length + 1 = ",
                     sequence_length + 1, ": add files or choose a shorter sequence length"));
  }
  const int64_t whole = sequences * sequence_length;
  return EvaluationPlan{.sequence_length = sequence_length,
                        .labels = max_labels > 0 ? std::min(max_labels, whole) : whole};
}

MicroBatchShape EvaluationShape(const EvaluationPlan& plan, int64_t rows) {
  const int64_t most = std::min(plan.sequences(), kMostSequences);
  return {.sequences = std::clamp<int64_t>(rows / plan.sequence_length, 1, most),
          .tokens = std::min(plan.sequence_length, rows)};
}

absl::StatusOr<double> EvaluateCorpus(const Corpus& corpus, const EvaluationPlan& plan,
                                      const MicroBatchShape& shape, RecurrentModel* model,
                                      const std::function<absl::Status(int64_t labels)>& on_part) {
  std::vector<int32_t> ids;
  std::vector<int32_t> labels;
  int64_t counted = 0;
  for (int64_t first = 0; first < plan.sequences(); first += shape.sequences) {
    model->Begin();
    for (int64_t begin = 0; begin < plan.sequence_length; begin += shape.tokens) {
      const int64_t tokens = std::min(shape.tokens, plan.sequence_length - begin);
      ids.resize(static_cast<size_t>(shape.sequences * tokens));
      labels.resize(ids.size());
      LASP_ASSIGN_OR_RETURN(const int64_t here,
                            ReadChunk(corpus, plan, first, begin, tokens, &ids, &labels));
      if (here == 0) {
        break;
      }
      LASP_RETURN_IF_ERROR(model->Advance(ids));
      LASP_RETURN_IF_ERROR(model->AddLoss(labels));
      counted += here;
      LASP_RETURN_IF_ERROR(on_part(counted));
    }
  }
  return model->LossSum();
}

absl::Status RunEvaluation(const EvaluateRequest& request, const ModelFolder& folder,
                           Backend* backend, const ReplyStream& replies) {
  const ModelConfig config = ModelConfig::FromSpec(folder.model());
  // The user's own files, by absolute paths.
  LASP_ASSIGN_OR_RETURN(const std::unique_ptr<Corpus> corpus,
                        Corpus::Open({request.paths().begin(), request.paths().end()},
                                     request.format(), config.vocab_size, {"/"}));
  LASP_ASSIGN_OR_RETURN(
      const EvaluationPlan plan,
      PlanEvaluation(corpus->token_count(), request.sequence_length(), request.max_tokens()));
  const MicroBatchShape shape = EvaluationShape(plan, kRowsAtATime);
  LASP_ASSIGN_OR_RETURN(const std::unique_ptr<RecurrentModel> model,
                        RecurrentModel::Create(config, shape, backend,
                                               [&folder](const std::string& tensor, int64_t begin,
                                                         int64_t count, float* to) {
                                                 return folder.Read(tensor, begin, count, to);
                                               }));
  LASP_RETURN_IF_ERROR(replies.WriteReady());
  const absl::Duration begin = SystemClock().Monotonic();
  absl::Duration next_part = begin + kPartInterval;
  const auto on_part = [&](int64_t labels) -> absl::Status {
    if (SystemClock().Monotonic() < next_part) {
      return absl::OkStatus();
    }
    LASP_ASSIGN_OR_RETURN(const double sum, model->LossSum());
    next_part = SystemClock().Monotonic() + kPartInterval;
    ModelReply reply;
    reply.mutable_evaluated()->set_tokens(labels);
    reply.mutable_evaluated()->set_total_tokens(plan.labels);
    reply.mutable_evaluated()->set_loss(sum / static_cast<double>(labels));
    return replies.Write(reply);
  };
  LASP_ASSIGN_OR_RETURN(const double sum,
                        EvaluateCorpus(*corpus, plan, shape, model.get(), on_part));
  ModelReply end;
  end.mutable_done()->set_tokens(plan.labels);
  end.mutable_done()->set_sequences(plan.sequences());
  end.mutable_done()->set_loss(sum / static_cast<double>(plan.labels));
  end.mutable_done()->set_seconds(absl::ToDoubleSeconds(SystemClock().Monotonic() - begin));
  return replies.Write(end);
}

}  // namespace lasp::worker
