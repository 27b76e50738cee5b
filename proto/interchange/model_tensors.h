// The tensors of a model as folders hold them: a TransNormerLLM's as Hugging Face's do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lasp/v1/training_spec.pb.h"
#include "proto/rpc/error_details.h"

namespace lasp {

// The rotary frequencies of the first layer, [heads, 1, head size]. They multiply positions, so
// they are fp32 whatever the others are.
inline constexpr char kThetaTensor[] = "model.layers.0.token_mixer.lrpe.theta";

struct ModelTensor {
  std::string name;
  // A Linear's is [outputs, inputs]; qkvu_proj's outputs are those of q, k, v and u, in this order,
  // qkv_proj's those of q, k and v.
  std::vector<int64_t> shape;

  int64_t count() const;
};

// What of `model`, with its defaults written out, is not valid: fields beneath `spec.model`.
std::vector<FieldViolation> ModelViolations(const lasp::v1::ModelSpec& model);

// Whether there is a layout of Hugging Face's for the model: TRANSNORMER's of linear attention
// alone. Folders of other models are alike, for our own programs.
bool HasHuggingFaceLayout(const lasp::v1::ModelSpec& model);

// In the order in which the forward pass meets them, which is that of a checkpoint's parameters.
// lm_head only where it is not tied to the embedding; TRANSNORMER's theta also where it is fixed,
// when no checkpoint holds it. `model` is valid.
std::vector<ModelTensor> ModelTensors(const lasp::v1::ModelSpec& model);

// theta where it is not learned: 10000^(-2 i / hidden_size) for i = 0 to hidden_size - 1.
std::vector<float> FixedTheta(const lasp::v1::ModelSpec& model);

}  // namespace lasp
