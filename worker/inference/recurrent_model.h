// A trained model (worker/model/transnormer.h) as a recurrence: it takes a sequence in chunks
// of any length, down to one token, and keeps no more of what was before than each layer's state.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/inference/recurrence.h"
#include "worker/model/activation_plan.h"
#include "worker/model/language_head.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter_layout.h"
#include "worker/model/token_mixer.h"

namespace lasp::worker {

// Elements [begin, begin + count) of a tensor, by its name in a ModelFolder.
using WeightReader =
    std::function<absl::Status(const std::string& tensor, int64_t begin, int64_t count, float* to)>;

// Not thread-safe.
class RecurrentModel {
 public:
  // `most`: the sequences that are taken side by side, and the longest chunk of each. `backend`
  // must outlive the model, which is its only user. UNIMPLEMENTED: a layer has softmax attention,
  // which is no recurrence. RESOURCE_EXHAUSTED names the size; errors of `read`.
  static absl::StatusOr<std::unique_ptr<RecurrentModel>> Create(const ModelConfig& config,
                                                                const MicroBatchShape& most,
                                                                Backend* backend,
                                                                const WeightReader& read);

  // What comes next begins new sequences.
  void Begin() {
    attention_.Begin();
    position_ = 0;
  }

  // The next tokens of all sequences, [sequences, tokens], 1 <= tokens <= most.tokens.
  absl::Status Advance(absl::Span<const int32_t> ids);

  // Of what follows the last token of sequence `sequence`: [vocab_size]. Waits for the device.
  absl::Status Logits(int64_t sequence, std::vector<float>* logits);

  // Counts the losses of the tokens taken last against `labels` [sequences, tokens]; -1 for none.
  absl::Status AddLoss(absl::Span<const int32_t> labels);
  // The sum of all losses counted, in nats. Waits for the device.
  absl::StatusOr<double> LossSum();

  const ModelConfig& config() const { return config_; }

  // All it holds on the device.
  const MemoryBill& memory() const { return arena_.bill(); }

 private:
  RecurrentModel(const ModelConfig& config, const MicroBatchShape& most, Backend* backend)
      : config_(config),
        most_(most),
        backend_(*backend),
        layout_(config),
        attention_(backend),
        mixer_(CreateTokenMixer(config, backend, &attention_)) {}

  // Takes everything from `arena`; run over a measuring arena first.
  void TakeMemory(Arena& arena);
  absl::Status ReadWeights(const WeightReader& read);
  absl::Status FillConstants(const WeightReader& read);
  // The first rows of block_, which all layers share, with the layer's state.
  BlockActivations BlockOf(int64_t layer, int64_t rows) const;

  const ModelConfig config_;
  const MicroBatchShape most_;
  Backend& backend_;
  const ParameterLayout layout_;
  Recurrence attention_;
  const std::unique_ptr<TokenMixer> mixer_;
  Arena arena_;

  Tensor flat_weights_;
  Tensor staging_;  // empty where weights are fp32 and need none
  ModelWeights weights_;
  Tensor theta_;
  std::vector<AttentionShape> attention_shapes_;
  std::vector<AttentionMemory> states_;
  Tensor ids_;
  Tensor labels_;
  BlockActivations block_;
  Tensor final_normed_;
  Tensor branch_output_;
  Tensor product_scratch_;
  Tensor logits_;
  Tensor loss_sum_;
  std::unique_ptr<LanguageHead> head_;
  int64_t rows_ = 0;      // taken last
  int64_t position_ = 0;  // of the next token of all sequences
};

}  // namespace lasp::worker
