#include "proto/spec/model_check.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "proto/spec/path_check.h"
#include "proto/spec/softmax_support.h"
#include "proto/spec/spec_limits.h"

namespace lasp {
namespace {

using Bound = FieldChecker::Bound;
using Model = v1::ModelSpec;

int64_t ParameterCount(const Model& model) {
  const int64_t hidden = model.hidden_size();
  // q, k, v, the output, and TransNormer's gate.
  const int64_t squares = model.architecture() == Model::ARCHITECTURE_LINEAR_TRANSFORMER ? 4 : 5;
  const int64_t softmax_layers = SoftmaxLayers(model);
  const int64_t softmax = 2 * hidden * (hidden + hidden / model.heads() * model.kv_heads());
  const int64_t mixers =
      (model.layers() - softmax_layers) * squares * hidden * hidden + softmax_layers * softmax;
  const int64_t tables = (model.tie_embeddings() ? 1 : 2) * hidden * model.vocab_size();
  return mixers + 3 * hidden * model.glu_size() * model.layers() + tables;
}

bool CheckHeads(const Model& model, FieldChecker* check) {
  const int hidden = model.hidden_size();
  const int heads = model.heads();
  if (hidden % heads != 0) {
    return check->Refuse("spec.model.heads",
                         absl::StrCat("is ", heads, ", which does not divide hidden_size ", hidden,
                                      ": make hidden_size a multiple of heads"));
  }
  if (hidden / heads > kMaxHeadSize) {
    return check->Refuse("spec.model.heads",
                         absl::StrCat("is ", heads, ", so a head is ", hidden / heads,
                                      " wide: at most ", kMaxHeadSize, ", choose at least ",
                                      (hidden - 1) / kMaxHeadSize + 1, " heads"));
  }
  return true;
}

bool CheckArchitecture(const Model& model, FieldChecker* check) {
  bool sound = true;
  const bool linear_transformer = model.architecture() == Model::ARCHITECTURE_LINEAR_TRANSFORMER;
  if (model.architecture() != Model::ARCHITECTURE_TRANSNORMER && !linear_transformer) {
    sound = check->Refuse("spec.model.architecture",
                          model.architecture() == Model::ARCHITECTURE_UNSPECIFIED
                              ? "is missing: choose TRANSNORMER or LINEAR_TRANSFORMER"
                              : "is unknown: choose TRANSNORMER or LINEAR_TRANSFORMER");
  }
  if (model.lrpe_theta() != Model::LRPE_THETA_FIXED &&
      model.lrpe_theta() != Model::LRPE_THETA_LEARNED) {
    sound = check->Refuse("spec.model.lrpe_theta", "is unknown: choose FIXED or LEARNED");
  } else if (linear_transformer && model.lrpe_theta() == Model::LRPE_THETA_LEARNED) {
    sound = check->Refuse("spec.model.lrpe_theta",
                          "is LEARNED, but LINEAR_TRANSFORMER has no rotary frequencies: leave it "
                          "out, or choose architecture TRANSNORMER");
  }
  return CheckLayerPattern(model, check) && sound;
}

}  // namespace

bool CheckModel(const v1::ModelSpec& model, FieldChecker* check) {
  bool sound = CheckArchitecture(model, check);
  const bool layers = check->Integer("spec.model.layers", model.layers(), 1, kMaxLayers);
  const bool hidden =
      check->Integer("spec.model.hidden_size", model.hidden_size(), 1, kMaxHiddenSize);
  bool heads = check->Integer("spec.model.heads", model.heads(), 1, kMaxHiddenSize);
  if (hidden && heads) {
    heads = CheckHeads(model, check);
  }
  const bool glu = check->Integer("spec.model.glu_size", model.glu_size(), 1, kMaxGluSize);
  const bool vocab = check->Integer("spec.model.vocab_size", model.vocab_size(), 2, kMaxVocabSize);
  sound &= check->Real("spec.model.init_std", model.init_std(), 0, Bound::kOpen, 10);
  if (model.has_initial_weights()) {
    sound &= CheckPath("spec.model.initial_weights.path", model.initial_weights().path(), check);
  }
  sound = sound && layers && hidden && heads && glu && vocab;
  if (sound && ParameterCount(model) > kMaxParameters) {
    sound = check->Refuse("spec.model",
                          absl::StrCat("has about ", ParameterCount(model), " parameters: at most ",
                                       kMaxParameters, ", choose fewer layers or a smaller width"));
  }
  return sound;
}

}  // namespace lasp
