// A model's loss on a corpus.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lasp/internal/v1/model_program.pb.h"
#include "proto/interchange/model_folder.h"
#include "worker/data/corpus.h"
#include "worker/device/backend.h"
#include "worker/inference/recurrent_model.h"
#include "worker/inference/reply_stream.h"

namespace lasp::worker {

struct EvaluationPlan {
  int64_t sequence_length = 0;
  // Labels that count: sequence_length of each sequence, fewer of the last one perhaps.
  int64_t labels = 0;

  int64_t sequences() const { return (labels + sequence_length - 1) / sequence_length; }
};

// The sequences of a corpus as a job's held-out data are cut (BatchSource): each of sequence_length
// labels, one after another, as many as are whole; at most max_labels, where that is not 0.
// INVALID_ARGUMENT where there is not one.
absl::StatusOr<EvaluationPlan> PlanEvaluation(int64_t corpus_tokens, int64_t sequence_length,
                                              int64_t max_labels);

// What a model takes at a time: at most `rows` tokens, of as many sequences as go in whole, or a
// part of one, which the carried state continues.
MicroBatchShape EvaluationShape(const EvaluationPlan& plan, int64_t rows);

// The sum of the losses in nats; `model` was made for `shape`. on_part is told the labels so far
// after each chunk; its error ends the evaluation.
absl::StatusOr<double> EvaluateCorpus(const Corpus& corpus, const EvaluationPlan& plan,
                                      const MicroBatchShape& shape, RecurrentModel* model,
                                      const std::function<absl::Status(int64_t labels)>& on_part);

// The whole of a request, with its replies. Errors of Corpus, RecurrentModel and PlanEvaluation.
absl::Status RunEvaluation(const lasp::internal::v1::EvaluateRequest& request,
                           const ModelFolder& folder, Backend* backend, const ReplyStream& replies);

}  // namespace lasp::worker
