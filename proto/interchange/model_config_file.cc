#include "proto/interchange/model_config_file.h"

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/interchange/model_tensors.h"
#include "proto/interchange/strict_json.h"
#include "proto/rpc/status_macros.h"

namespace lasp {
namespace {

using lasp::v1::ModelSpec;
using nlohmann::json;

constexpr int64_t kMaxConfigBytes = 1 << 20;
// As the kernels have it; what an implementation in PyTorch needs to know beside the weights.
constexpr double kNormEpsilon = 1e-6;
constexpr char kModelType[] = "transnormer";
constexpr char kLinearTransformerType[] = "lasp_linear_transformer";
constexpr char kNormType[] = "simplermsnorm";
constexpr char kActivation[] = "silu";
// slope(head) * (1 - layer / (layers - 1) + 1e-5), slope as ALiBi's.
constexpr char kDecay[] = "layerwise_alibi";

struct NamedField {
  const char* key;
  const char* field;
};

constexpr NamedField kFields[] = {
    {"decoder_layers", "layers"},         {"decoder_embed_dim", "hidden_size"},
    {"decoder_attention_heads", "heads"}, {"glu_dim", "glu_size"},
    {"vocab_size", "vocab_size"},         {"tie_word_embeddings", "tie_embeddings"},
    {"lrpe_theta", "lrpe_theta"},         {"init_std", "init_std"},
    {"model_type", "architecture"},
};

absl::Status Wrong(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(kModelConfigFile, ": ", what));
}

std::string ValueText(const json& value) {
  constexpr size_t kLongest = 60;
  const std::string text =
      value.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
  return text.size() <= kLongest ? text : absl::StrCat(text.substr(0, kLongest), "...");
}

// Null where the key is not there.
const json* Find(const json& config, const char* key) {
  const auto found = config.find(key);
  return found == config.end() || found->is_null() ? nullptr : &*found;
}

absl::StatusOr<int32_t> Whole(const json& config, const char* key) {
  const json* const value = Find(config, key);
  if (value == nullptr) {
    return Wrong(absl::StrCat("has no ", key));
  }
  if (!value->is_number_unsigned() ||
      value->get<uint64_t>() > uint64_t{std::numeric_limits<int32_t>::max()}) {
    return Wrong(absl::StrCat(key, " is ", ValueText(*value), ", no whole number of use"));
  }
  return static_cast<int32_t>(value->get<uint64_t>());
}

absl::StatusOr<bool> Flag(const json& config, const char* key, bool otherwise) {
  const json* const value = Find(config, key);
  if (value == nullptr) {
    return otherwise;
  }
  if (!value->is_boolean()) {
    return Wrong(absl::StrCat(key, " is ", ValueText(*value), ", neither true nor false"));
  }
  return value->get<bool>();
}

// What this model is, and cannot be otherwise; `alike` means the same.
absl::Status Require(const json& config, const char* key, const json& only,
                     const json& alike = nullptr) {
  const json* const value = Find(config, key);
  if (value == nullptr || *value == only || (!alike.is_null() && *value == alike)) {
    return absl::OkStatus();
  }
  return Wrong(absl::StrCat(key, " is ", ValueText(*value), ": this model has ", ValueText(only)));
}

absl::Status RequireFirstLayerLrpe(const json& config, int layers) {
  const json* const list = Find(config, "linear_use_lrpe_list");
  if (list == nullptr) {
    return absl::OkStatus();
  }
  bool right = list->is_array() && static_cast<int64_t>(list->size()) == layers;
  for (size_t i = 0; right && i < list->size(); ++i) {
    right = (*list)[i] == json(i == 0 ? 1 : 0);
  }
  return right ? absl::OkStatus()
               : Wrong(absl::StrCat("linear_use_lrpe_list is ", ValueText(*list),
                                    ": this model has 1 for the first of ", layers,
                                    " layers and 0 for the others"));
}

absl::Status RequireArchitecture(const json& config, const ModelSpec& model) {
  LASP_RETURN_IF_ERROR(Require(config, "norm_eps", kNormEpsilon));
  if (!HasHuggingFaceLayout(model)) {
    return absl::OkStatus();
  }
  LASP_RETURN_IF_ERROR(Require(config, "hidden_dim", model.hidden_size()));
  LASP_RETURN_IF_ERROR(Require(config, "no_scale_embedding", false));
  LASP_RETURN_IF_ERROR(Require(config, "norm_type", kNormType));
  LASP_RETURN_IF_ERROR(Require(config, "linear_act_fun", kActivation, "swish"));
  LASP_RETURN_IF_ERROR(Require(config, "linear_decay", kDecay));
  LASP_RETURN_IF_ERROR(Require(config, "bias", false));
  return RequireFirstLayerLrpe(config, model.layers());
}

absl::StatusOr<ModelSpec::LrpeTheta> Theta(const json& config) {
  const json* const value = Find(config, "lrpe_theta");
  // Hugging Face's class has it as a parameter.
  if (value == nullptr || *value == "LEARNED") {
    return ModelSpec::LRPE_THETA_LEARNED;
  }
  if (*value == "FIXED") {
    return ModelSpec::LRPE_THETA_FIXED;
  }
  return Wrong(absl::StrCat("lrpe_theta is ", ValueText(*value), ", neither FIXED nor LEARNED"));
}

std::string LinearTransformerConfigText(const ModelSpec& model, ElementType type) {
  const nlohmann::ordered_json config = {
      {"model_type", kLinearTransformerType},
      {"vocab_size", model.vocab_size()},
      {"decoder_layers", model.layers()},
      {"decoder_embed_dim", model.hidden_size()},
      {"decoder_attention_heads", model.heads()},
      {"glu_dim", model.glu_size()},
      {"tie_word_embeddings", model.tie_embeddings()},
      {"init_std", model.init_std()},
      {"norm_eps", kNormEpsilon},
      {"torch_dtype", TorchName(type)},
  };
  return config.dump(2) + "\n";
}

// What the config says of the architecture; theta goes with it.
absl::Status TakeArchitecture(const json& config, ModelSpec* model) {
  const json* const type = Find(config, "model_type");
  if (type != nullptr && *type == kLinearTransformerType) {
    model->set_architecture(ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER);
    model->set_lrpe_theta(ModelSpec::LRPE_THETA_FIXED);
    return absl::OkStatus();
  }
  LASP_RETURN_IF_ERROR(Require(config, "model_type", kModelType));
  model->set_architecture(ModelSpec::ARCHITECTURE_TRANSNORMER);
  LASP_ASSIGN_OR_RETURN(const ModelSpec::LrpeTheta theta, Theta(config));
  model->set_lrpe_theta(theta);
  return absl::OkStatus();
}

absl::Status CheckLimits(const ModelSpec& model) {
  for (const FieldViolation& violation : ModelViolations(model)) {
    absl::string_view field = absl::StripPrefix(violation.field, "spec.model");
    absl::ConsumePrefix(&field, ".");
    const absl::string_view key = ModelConfigKey(field);
    return Wrong(absl::StrCat(key.empty() ? "the model" : key, " ", violation.description));
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view ModelConfigKey(absl::string_view field) {
  for (const NamedField& named : kFields) {
    if (field == named.field) {
      return named.key;
    }
  }
  return "";
}

std::string ModelConfigText(const ModelSpec& model, ElementType type) {
  if (!HasHuggingFaceLayout(model)) {
    return LinearTransformerConfigText(model, type);
  }
  std::vector<int> lrpe(static_cast<size_t>(model.layers()), 0);
  lrpe[0] = 1;
  const nlohmann::ordered_json config = {
      {"architectures", {"TransnormerForCausalLM"}},
      {"model_type", kModelType},
      {"vocab_size", model.vocab_size()},
      {"decoder_layers", model.layers()},
      {"decoder_embed_dim", model.hidden_size()},
      {"decoder_attention_heads", model.heads()},
      {"glu_dim", model.glu_size()},
      {"hidden_dim", model.hidden_size()},
      {"tie_word_embeddings", model.tie_embeddings()},
      {"init_std", model.init_std()},
      {"no_scale_embedding", false},
      {"norm_type", kNormType},
      {"norm_eps", kNormEpsilon},
      {"linear_act_fun", kActivation},
      {"linear_decay", kDecay},
      {"linear_use_lrpe_list", lrpe},
      {"lrpe_theta", model.lrpe_theta() == ModelSpec::LRPE_THETA_LEARNED ? "LEARNED" : "FIXED"},
      {"bias", false},
      {"add_bos_token", false},
      {"use_cache", true},
      {"torch_dtype", TorchName(type)},
  };
  return config.dump(2) + "\n";
}

absl::StatusOr<ModelSpec> ParseModelConfig(absl::string_view text) {
  LASP_ASSIGN_OR_RETURN(const json config,
                        ParseJsonObject(kModelConfigFile, text, kMaxConfigBytes));
  ModelSpec model;
  LASP_RETURN_IF_ERROR(TakeArchitecture(config, &model));
  model.set_layer_pattern("L");
  LASP_ASSIGN_OR_RETURN(const int32_t layers, Whole(config, "decoder_layers"));
  LASP_ASSIGN_OR_RETURN(const int32_t hidden_size, Whole(config, "decoder_embed_dim"));
  LASP_ASSIGN_OR_RETURN(const int32_t heads, Whole(config, "decoder_attention_heads"));
  LASP_ASSIGN_OR_RETURN(const int32_t glu_size, Whole(config, "glu_dim"));
  LASP_ASSIGN_OR_RETURN(const int32_t vocab_size, Whole(config, "vocab_size"));
  model.set_layers(layers);
  model.set_hidden_size(hidden_size);
  model.set_heads(heads);
  model.set_glu_size(glu_size);
  model.set_vocab_size(vocab_size);
  LASP_ASSIGN_OR_RETURN(const bool tied, Flag(config, "tie_word_embeddings", true));
  model.set_tie_embeddings(tied);
  double init_std = 0.02;
  if (const json* const value = Find(config, "init_std")) {
    if (!value->is_number()) {
      return Wrong(absl::StrCat("init_std is ", ValueText(*value), ", no number"));
    }
    init_std = value->get<double>();
  }
  model.set_init_std(init_std);
  LASP_RETURN_IF_ERROR(CheckLimits(model));
  LASP_RETURN_IF_ERROR(RequireArchitecture(config, model));
  return model;
}

}  // namespace lasp
