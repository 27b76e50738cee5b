#include "proto/spec/softmax_support.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/spec/spec_limits.h"

namespace lasp {
namespace {

using Model = v1::ModelSpec;

// Of a model without such layers.
bool CheckNothingOfSoftmax(const Model& model, FieldChecker* check) {
  bool sound = true;
  if (model.kv_heads() != 0) {
    sound = check->Refuse("spec.model.kv_heads",
                          absl::StrCat("is ", model.kv_heads(),
                                       ", but no layer has softmax attention: leave it out"));
  }
  if (model.has_rotary_base()) {
    sound = check->Refuse("spec.model.rotary_base",
                          absl::StrCat("is ", model.rotary_base(),
                                       ", but no layer has softmax attention: leave it out"));
  }
  return sound;
}

bool CheckKvHeads(const Model& model, FieldChecker* check) {
  constexpr absl::string_view kField = "spec.model.kv_heads";
  if (!check->Integer(kField, model.kv_heads(), 1, kMaxHiddenSize)) {
    return false;
  }
  if (model.heads() < 1 || model.heads() % model.kv_heads() == 0) {
    return true;
  }
  int below = std::min(model.kv_heads(), model.heads());
  while (model.heads() % below != 0) {
    --below;
  }
  return check->Refuse(
      kField, absl::StrCat("is ", model.kv_heads(), ", which does not divide heads ", model.heads(),
                           ": choose for example ", below));
}

// Of a model that has them.
bool CheckSoftmax(const Model& model, FieldChecker* check) {
  bool sound = CheckKvHeads(model, check);
  sound &= check->Real("spec.model.rotary_base", model.rotary_base(), 1, FieldChecker::Bound::kOpen,
                       kMaxRotaryBase);
  if (model.lrpe_theta() == Model::LRPE_THETA_LEARNED && model.layer_pattern()[0] == 'N') {
    sound = check->Refuse("spec.model.lrpe_theta",
                          "is LEARNED, but the first layer has softmax attention and none of these "
                          "frequencies: leave it out, or begin layer_pattern with L");
  }
  if (model.heads() > 0 && model.hidden_size() % model.heads() == 0 &&
      model.hidden_size() / model.heads() % 2 != 0) {
    sound = check->Refuse(
        "spec.model.heads",
        absl::StrCat("is ", model.heads(), ", so a head is ", model.hidden_size() / model.heads(),
                     " wide, but rotary positions turn pairs: choose heads of "
                     "an even width"));
  }
  if (model.has_initial_weights()) {
    sound = check->Refuse("spec.model.initial_weights",
                          "are of linear attention alone, but layer_pattern has N: leave them out, "
                          "or choose layer_pattern L");
  }
  return sound;
}

}  // namespace

int64_t SoftmaxLayers(const Model& model) {
  const std::string& pattern = model.layer_pattern();
  if (pattern.empty() || model.layers() < 1) {
    return 0;
  }
  const auto size = static_cast<int64_t>(pattern.size());
  const auto among = [&pattern](int64_t layers) {
    return static_cast<int64_t>(std::count(pattern.begin(), pattern.begin() + layers, 'N'));
  };
  return model.layers() / size * among(size) + among(model.layers() % size);
}

bool CheckLayerPattern(const Model& model, FieldChecker* check) {
  // A model that was stored before there were patterns has none.
  if (model.layer_pattern().find_first_not_of("LN") != std::string::npos) {
    return check->Refuse("spec.model.layer_pattern",
                         "has a layer that is neither L, linear attention, nor N, softmax "
                         "attention: choose for example LLLN");
  }
  if (model.layer_pattern().size() > static_cast<size_t>(kMaxLayers)) {
    return check->Refuse("spec.model.layer_pattern",
                         absl::StrCat("has ", model.layer_pattern().size(), " layers: at most ",
                                      kMaxLayers, ", name those that repeat once"));
  }
  return SoftmaxLayers(model) > 0 ? CheckSoftmax(model, check)
                                  : CheckNothingOfSoftmax(model, check);
}

void CheckSoftmaxJob(const v1::TrainingSpec& spec, FieldChecker* check) {
  if (SoftmaxLayers(spec.model()) == 0) {
    return;
  }
  if (spec.memory().activations() == v1::MemorySpec::ACTIVATIONS_STREAM) {
    check->Refuse("spec.memory.activations",
                  "is STREAM, but layers of softmax attention (layer_pattern) have no state of "
                  "constant size to go on from one macro-chunk to the next: choose KEEP, RECOMPUTE "
                  "or OFFLOAD, or layer_pattern L");
  }
}

}  // namespace lasp
