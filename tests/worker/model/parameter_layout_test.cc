#include "worker/model/parameter_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace lasp::worker {
namespace {

using ::testing::ElementsAre;

ModelConfig Config(bool tie_embeddings, bool learned_theta) {
  return {.layers = 2,
          .hidden_size = 8,
          .heads = 2,
          .glu_size = 6,
          .vocab_size = 5,
          .tie_embeddings = tie_embeddings,
          .learned_theta = learned_theta};
}

TEST(ParameterLayoutTest, NamesEveryParameterOnceAndLeavesNoGap) {
  const ParameterLayout layout(Config(false, true));
  int64_t offset = 0;
  std::vector<std::string> names;
  for (const Parameter& parameter : layout.parameters()) {
    EXPECT_EQ(parameter.offset, offset);
    offset += parameter.count();
    names.push_back(parameter.name);
  }
  EXPECT_EQ(layout.count(), offset);
  EXPECT_THAT(
      names,
      ElementsAre(
          "model.embed_tokens.weight", "model.layers.0.token_mixer.qkvu_proj.weight",
          "model.layers.0.token_mixer.out_proj.weight", "model.layers.0.token_mixer.lrpe.theta",
          "model.layers.0.channel_mixer.l1.weight", "model.layers.0.channel_mixer.l2.weight",
          "model.layers.0.channel_mixer.l3.weight", "model.layers.1.token_mixer.qkvu_proj.weight",
          "model.layers.1.token_mixer.out_proj.weight", "model.layers.1.channel_mixer.l1.weight",
          "model.layers.1.channel_mixer.l2.weight", "model.layers.1.channel_mixer.l3.weight",
          "lm_head.weight"));
}

TEST(ParameterLayoutTest, ASoftmaxLayersProjectionHasFewerHeadsOfKeysAndValuesAndNoGate) {
  ModelConfig config = Config(true, true);
  config.layer_pattern = "LN";
  config.kv_heads = 1;
  const ParameterLayout layout(config);
  const std::vector<Parameter>& parameters = layout.parameters();
  EXPECT_EQ(parameters[1].name, "model.layers.0.token_mixer.qkvu_proj.weight");
  EXPECT_EQ(parameters[1].rows, 4 * 8);
  EXPECT_EQ(parameters[7].name, "model.layers.1.token_mixer.qkv_proj.weight");
  EXPECT_EQ(parameters[7].rows, 8 + 2 * 4);
  EXPECT_EQ(parameters[8].name, "model.layers.1.token_mixer.out_proj.weight");
  std::vector<float> buffer(static_cast<size_t>(layout.count()));
  const ModelWeights weights =
      layout.Bind({buffer.data(), DType::kFloat32, 1, layout.count(), layout.count()});
  EXPECT_EQ(weights.blocks[1].qkvu.rows, 16);
  EXPECT_EQ(static_cast<float*>(weights.blocks[1].l3.data) + 48, buffer.data() + buffer.size());
}

TEST(ParameterLayoutTest, OnlyTheFrequenciesDoNotDecay) {
  const std::vector<ParameterRange> ranges = ParameterLayout(Config(false, true)).Ranges();
  ASSERT_EQ(ranges.size(), 3u);
  EXPECT_TRUE(ranges[0].decays);
  EXPECT_FALSE(ranges[1].decays);
  EXPECT_EQ(ranges[1].count, 8);
  EXPECT_TRUE(ranges[2].decays);
  EXPECT_EQ(ranges[0].count + ranges[1].count + ranges[2].count,
            ParameterLayout(Config(false, true)).count());
  EXPECT_EQ(ParameterLayout(Config(true, false)).Ranges().size(), 1u);
}

TEST(ParameterLayoutTest, ViewsCoverTheBufferInOrder) {
  const ParameterLayout layout(Config(true, false));
  std::vector<float> buffer(static_cast<size_t>(layout.count()));
  const ModelWeights weights =
      layout.Bind({buffer.data(), DType::kFloat32, 1, layout.count(), layout.count()});
  EXPECT_EQ(weights.embedding.data, buffer.data());
  EXPECT_EQ(weights.head.data, weights.embedding.data);
  EXPECT_TRUE(weights.blocks[0].theta.empty());
  EXPECT_EQ(weights.blocks[0].qkvu.rows, 32);
  EXPECT_EQ(weights.blocks[0].l1_l2.rows, 12);
  EXPECT_EQ(weights.blocks[1].l3.rows, 8);
  EXPECT_EQ(weights.blocks[1].l3.columns, 6);
  EXPECT_EQ(static_cast<float*>(weights.blocks[1].l3.data) + 48, buffer.data() + buffer.size());
  EXPECT_EQ(static_cast<float*>(weights.blocks[1].qkvu.data),
            buffer.data() + layout.units()[2].begin);
  // The embedding and two blocks, which take turns.
  ASSERT_EQ(layout.units().size(), 3u);
  EXPECT_EQ(layout.units()[2].begin + layout.units()[2].count, layout.count());
  EXPECT_NE(layout.units()[1].slot, layout.units()[2].slot);
  EXPECT_EQ(layout.HeadUnit(), ParameterLayout::kEmbedding);
}

}  // namespace
}  // namespace lasp::worker
