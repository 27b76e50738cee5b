// Training reaches a loss that no model without a working mixer can: below the entropy of a byte
// given the one before it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/local_training.h"

namespace lasp::worker {
namespace {

// Nats a byte, of a byte given its predecessor, over the text itself.
double Order1Entropy(const std::string& text) {
  constexpr size_t kBytes = 256;
  std::vector<double> pairs(kBytes * kBytes, 0);
  std::vector<double> firsts(kBytes, 0);
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    const auto first = static_cast<unsigned char>(text[i]);
    pairs[first * 256u + static_cast<unsigned char>(text[i + 1])] += 1;
    firsts[first] += 1;
  }
  double entropy = 0;
  for (size_t pair = 0; pair < pairs.size(); ++pair) {
    if (pairs[pair] > 0) {
      entropy -= pairs[pair] * std::log(pairs[pair] / firsts[pair / 256]);
    }
  }
  return entropy / static_cast<double>(text.size() - 1);
}

// A mixer that mixes nothing.
class ZeroedAttention : public SequenceParallel {
 public:
  ZeroedAttention(std::unique_ptr<SequenceParallel> inner, Backend* backend)
      : inner_(std::move(inner)), backend_(*backend) {}

  AttentionMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    return inner_->TakeMemory(shape, arena);
  }

  void TakeScratch(const AttentionShape& widest, Arena& arena) override {
    inner_->TakeScratch(widest, arena);
  }

  absl::Status BeginForward(const AttentionShape&, const AttentionInputs&,
                            const AttentionMemory&) override {
    return absl::OkStatus();
  }

  absl::Status EndForward(const AttentionShape&, const AttentionInputs&, const AttentionMemory&,
                          Tensor output) override {
    backend_.Fill(0, output);
    return absl::OkStatus();
  }

  absl::Status Backward(const AttentionShape&, const AttentionInputs&, const AttentionMemory&,
                        Tensor, const AttentionGradients& gradients) override {
    for (const Tensor& gradient : {gradients.q, gradients.k, gradients.v}) {
      for (int64_t row = 0; row < gradient.rows; ++row) {
        backend_.Fill(0, gradient.Rows(row, 1));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Finish() override { return inner_->Finish(); }

 private:
  const std::unique_ptr<SequenceParallel> inner_;
  Backend& backend_;
};

class LearnsFromContextTest : public ::testing::Test {
 protected:
  LearnsFromContextTest() : text_(MakeText(300'000, 9, 40)) { folder_.Write("corpus.txt", text_); }

  // The mean loss of the last 20 steps.
  double FinalLoss(bool zero_the_mixer) {
    LocalTrainingOptions options;
    options.spec = SmallSpec("corpus.txt");
    options.path_roots = {folder_.path()};
    options.spec.mutable_model()->set_hidden_size(64);
    options.spec.mutable_model()->set_glu_size(128);
    options.spec.mutable_data()->set_sequence_length(256);
    options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(2);
    options.spec.mutable_optimizer()->set_learning_rate(8e-3);
    options.spec.set_micro_batch_size(4);
    options.spec.set_max_steps(300);
    if (zero_the_mixer) {
      options.wrap_attention = [](std::unique_ptr<SequenceParallel> inner, Backend* backend) {
        return std::make_unique<ZeroedAttention>(std::move(inner), backend);
      };
    }
    const auto records = TrainLocally(options);
    LASP_EXPECT_OK(records[0].status);
    const std::vector<double> losses = Losses(records);
    return std::accumulate(losses.end() - 20, losses.end(), 0.0) / 20;
  }

  const std::string text_;
  lasp::testing::TempDirectory folder_;
};

TEST_F(LearnsFromContextTest, TheMixerTakesTheLossBelowOrder1EntropyAndNothingElseDoes) {
  const double entropy = Order1Entropy(text_);
  const double loss = FinalLoss(false);
  const double zeroed = FinalLoss(true);
  RecordProperty("order1_entropy", std::to_string(entropy));
  RecordProperty("loss", std::to_string(loss));
  RecordProperty("loss_with_the_mixer_zeroed", std::to_string(zeroed));
  EXPECT_LT(loss, entropy - 0.1);
  EXPECT_GT(zeroed, entropy - 0.03) << "with a mixer the loss is " << loss;
}

}  // namespace
}  // namespace lasp::worker
