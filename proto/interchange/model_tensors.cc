#include "proto/interchange/model_tensors.h"

#include <cmath>
#include <functional>
#include <numeric>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/spec/softmax_support.h"
#include "proto/spec/spec_validator.h"

namespace lasp {

int64_t ModelTensor::count() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::vector<FieldViolation> ModelViolations(const lasp::v1::ModelSpec& model) {
  lasp::v1::TrainingSpec spec;
  *spec.mutable_model() = model;
  std::vector<FieldViolation> violations = ValidateSpec(spec);
  // The rest of such a spec is empty.
  std::erase_if(violations, [](const FieldViolation& violation) {
    return !absl::StartsWith(violation.field, "spec.model");
  });
  return violations;
}

bool HasHuggingFaceLayout(const lasp::v1::ModelSpec& model) {
  return model.architecture() != lasp::v1::ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER &&
         SoftmaxLayers(model) == 0;
}

std::vector<ModelTensor> ModelTensors(const lasp::v1::ModelSpec& model) {
  const int64_t hidden = model.hidden_size();
  std::vector<ModelTensor> tensors = {{"model.embed_tokens.weight", {model.vocab_size(), hidden}}};
  tensors.reserve(5 * static_cast<size_t>(model.layers()) + 3);
  for (int layer = 0; layer < model.layers(); ++layer) {
    const std::string mixer = absl::StrCat("model.layers.", layer, ".token_mixer.");
    const std::string channel = absl::StrCat("model.layers.", layer, ".channel_mixer.");
    if (HasHuggingFaceLayout(model)) {
      tensors.push_back({mixer + "qkvu_proj.weight", {4 * hidden, hidden}});
    } else {
      tensors.push_back({mixer + "qkv_proj.weight", {3 * hidden, hidden}});
    }
    tensors.push_back({mixer + "out_proj.weight", {hidden, hidden}});
    if (layer == 0 && HasHuggingFaceLayout(model)) {
      tensors.push_back({kThetaTensor, {model.heads(), 1, hidden / model.heads()}});
    }
    tensors.push_back({channel + "l1.weight", {model.glu_size(), hidden}});
    tensors.push_back({channel + "l2.weight", {model.glu_size(), hidden}});
    tensors.push_back({channel + "l3.weight", {hidden, model.glu_size()}});
  }
  if (!model.tie_embeddings()) {
    tensors.push_back({"lm_head.weight", {model.vocab_size(), hidden}});
  }
  return tensors;
}

std::vector<float> FixedTheta(const lasp::v1::ModelSpec& model) {
  std::vector<float> theta(static_cast<size_t>(model.hidden_size()));
  for (size_t i = 0; i < theta.size(); ++i) {
    theta[i] =
        static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(i) / model.hidden_size()));
  }
  return theta;
}

}  // namespace lasp
