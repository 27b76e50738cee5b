#include "proto/interchange/model_config_file.h"

#include <nlohmann/json.hpp>

#include "tests/proto/interchange/model_fixture.h"

namespace lasp {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

nlohmann::json Config() {
  return nlohmann::json::parse(ModelConfigText(SmallModel(), ElementType::kFloat32));
}

TEST(ModelConfigFileTest, SaysWhatItWasGiven) {
  for (const bool tied : {false, true}) {
    for (const bool learned : {false, true}) {
      const auto model =
          ParseModelConfig(ModelConfigText(SmallModel(tied, learned), ElementType::kBfloat16));
      LASP_ASSERT_OK(model);
      EXPECT_EQ(model->SerializeAsString(), SmallModel(tied, learned).SerializeAsString());
    }
  }
  EXPECT_EQ(Config()["torch_dtype"], "float32");
  EXPECT_EQ(Config()["linear_use_lrpe_list"], nlohmann::json({1, 0}));
}

TEST(ModelConfigFileTest, SaysOfALinearTransformerThatItIsOne) {
  lasp::v1::ModelSpec model = SmallModel(/*tied=*/true, /*learned=*/false);
  model.set_architecture(lasp::v1::ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER);
  const std::string text = ModelConfigText(model, ElementType::kFloat32);
  EXPECT_EQ(nlohmann::json::parse(text)["model_type"], "lasp_linear_transformer");
  const auto read = ParseModelConfig(text);
  LASP_ASSERT_OK(read);
  EXPECT_EQ(read->SerializeAsString(), model.SerializeAsString());
}

TEST(ModelConfigFileTest, TakesWhatHuggingFacesClassLeavesOut) {
  const auto model = ParseModelConfig(R"({
    "architectures": ["TransnormerForCausalLM"], "model_type": "transnormer", "pad_token_id": 0,
    "decoder_layers": 24, "decoder_embed_dim": 1024, "decoder_attention_heads": 8, "glu_dim": 2816,
    "hidden_dim": 1024, "vocab_size": 64000, "linear_act_fun": "swish", "transformers_version": "4"})");
  LASP_ASSERT_OK(model);
  EXPECT_TRUE(model->tie_embeddings());
  EXPECT_EQ(model->lrpe_theta(), lasp::v1::ModelSpec::LRPE_THETA_LEARNED);
  EXPECT_EQ(model->init_std(), 0.02);
}

TEST(ModelConfigFileTest, SaysWhatIsWrong) {
  const auto with = [](const char* key, const nlohmann::json& value) {
    nlohmann::json config = Config();
    if (value == "gone") {
      config.erase(key);
    } else {
      config[key] = value;
    }
    return config.dump();
  };

  struct Case {
    const char* key;
    nlohmann::json value;
    const char* said;
  };

  for (const Case& c : std::vector<Case>{
           {"decoder_layers", "gone", "has no decoder_layers"},
           {"decoder_layers", -1, "decoder_layers is -1, no whole number"},
           {"decoder_layers", 2.5, "decoder_layers is 2.5"},
           {"decoder_layers", "2", "decoder_layers is \"2\""},
           {"decoder_layers", uint64_t{1} << 40, "decoder_layers is 1099511627776"},
           {"decoder_layers", 2000, "decoder_layers is 2000: choose a number from 1 to"},
           {"decoder_layers", 0, "decoder_layers is 0"},
           {"decoder_embed_dim", 1 << 30, "decoder_embed_dim is"},
           {"decoder_attention_heads", 3, "decoder_attention_heads is 3, which does not divide"},
           {"vocab_size", 1, "vocab_size is 1"},
           {"tie_word_embeddings", 1, "tie_word_embeddings is 1, neither true nor false"},
           {"init_std", "small", "init_std is \"small\", no number"},
           {"init_std", -1, "init_std is -1"},
           {"hidden_dim", 16, "hidden_dim is 16: this model has 8"},
           {"model_type", "llama", "model_type is \"llama\": this model has \"transnormer\""},
           {"norm_type", "layernorm", "norm_type is \"layernorm\""},
           {"norm_eps", 1e-5, "norm_eps is 1e-05"},
           {"linear_act_fun", "elu", "linear_act_fun is \"elu\""},
           {"linear_decay", "linear", "linear_decay is \"linear\""},
           {"no_scale_embedding", true, "no_scale_embedding is true"},
           {"bias", true, "bias is true"},
           {"lrpe_theta", "SOMETIMES", "lrpe_theta is \"SOMETIMES\", neither FIXED nor LEARNED"},
           {"linear_use_lrpe_list", {1, 1}, "linear_use_lrpe_list is [1,1]: this model has 1"},
           {"linear_use_lrpe_list", {1}, "linear_use_lrpe_list is [1]"},
       }) {
    EXPECT_THAT(ParseModelConfig(with(c.key, c.value)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.said)));
  }
  for (const auto& [text, said] : std::map<std::string, std::string>{
           {"", "no JSON object"},
           {"[]", "no JSON object"},
           {"{", "no JSON object"},
           {R"({"vocab_size": 1, "vocab_size": 2})", "'vocab_size' is there twice"},
           {std::string(2 << 20, ' '), "at most 1048576"}}) {
    EXPECT_THAT(ParseModelConfig(text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(said)));
  }
}

}  // namespace
}  // namespace lasp
