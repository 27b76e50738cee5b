#include "tests/worker/model/computed_gradients.h"

#include <cmath>
#include <random>
#include <string>

#include "proto/rpc/status_macros.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/model/model_under_test.h"

namespace lasp::worker {
namespace {

// Normal values that fp32 holds.
std::vector<double> RandomParameters(int64_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02F);
  std::vector<double> values(static_cast<size_t>(count));
  for (double& value : values) {
    value = static_cast<double>(normal(random));
  }
  return values;
}

}  // namespace

ComputedGradients ComputeGradients(const LocalRanksOptions& options, const ModelConfig& config,
                                   const MicroBatchShape& shape, const RandomSequences& batch,
                                   bool rehearse) {
  ComputedGradients result;
  ExpectLocalRanks(options, [&](LocalRank& rank) -> absl::Status {
    LASP_ASSIGN_OR_RETURN(const auto model, ModelUnderTest::Create(config, shape, rank));
    model->SetParameters(RandomParameters(model->layout().count()));
    if (rehearse) {
      rank.backend->Rehearse(true);
      LASP_RETURN_IF_ERROR(model->Run(batch.ids, batch.labels).status());
      rank.backend->Rehearse(false);
    }
    LASP_ASSIGN_OR_RETURN(result.loss, model->Run(batch.ids, batch.labels));
    result.gradients = model->Gradients();
    return rank.backend->Synchronize();
  });
  return result;
}

ComputedGradients ComputeGradients(const LocalRanksOptions& options, const ModelConfig& config,
                                   const MicroBatchShape& shape, bool rehearse) {
  return ComputeGradients(options, config, shape,
                          MakeSequences(shape.sequences, shape.tokens, config.vocab_size, 3),
                          rehearse);
}

RandomSequences TextSequences(const MicroBatchShape& shape, size_t first) {
  const auto count = static_cast<size_t>(shape.rows());
  const std::string text = MakeText(first + count + 1, 5);
  RandomSequences batch;
  for (size_t at = first; at < first + count; ++at) {
    batch.ids.push_back(static_cast<unsigned char>(text[at]));
    batch.labels.push_back(static_cast<unsigned char>(text[at + 1]));
  }
  return batch;
}

double RelativeRms(const std::vector<double>& actual, const std::vector<double>& expected,
                   const Parameter& parameter) {
  double difference = 0;
  double scale = 0;
  for (int64_t i = parameter.offset; i < parameter.offset + parameter.count(); ++i) {
    const auto at = static_cast<size_t>(i);
    difference += (actual[at] - expected[at]) * (actual[at] - expected[at]);
    scale += expected[at] * expected[at];
  }
  return std::sqrt(difference / scale);
}

ModelConfig QuickStartModel() {
  return {.layers = 2,
          .hidden_size = 128,
          .heads = 4,
          .glu_size = 352,
          .vocab_size = 256,
          .tie_embeddings = true,
          .learned_theta = true};
}

}  // namespace lasp::worker
