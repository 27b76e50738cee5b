// The ranks of an SP group have every element of what they share out once, and each all of the
// rest, in the places that a rank alone has them.
#include "worker/model/parameter_shards.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "worker/model/parameter_layout.h"

namespace lasp::worker {
namespace {

// With layers of softmax attention: two heads of queries to one of keys.
ModelConfig Config(bool linear_transformer, int ranks, int rank, const std::string& pattern = "L") {
  return {.linear_transformer = linear_transformer,
          .layers = 2,
          .hidden_size = 48,
          .heads = 24,
          .glu_size = 36,
          .vocab_size = 5,
          .learned_theta = !linear_transformer,
          .tensor_ranks = ranks,
          .tensor_rank = rank,
          .layer_pattern = pattern,
          .kv_heads = 12};
}

// For each element of this rank's layout its place in the whole model.
std::vector<int64_t> Places(const ModelConfig& config) {
  const int64_t count = ParameterLayout(config).count();
  std::vector<int64_t> places(static_cast<size_t>(count), -1);
  const int64_t half = count / 2 + 1;
  const ParameterShards shards(config);
  // In two ranges, of which the second lies elsewhere in this rank's tensors.
  for (const TensorShare& range : {TensorShare{.begin = 0, .count = half, .local = 0},
                                   TensorShare{.begin = half, .count = count - half, .local = 7}}) {
    for (const TensorShare& share : shards.PlacesOf(range)) {
      for (int64_t i = 0; i < share.count; ++i) {
        const int64_t own = range.begin + share.local - range.local + i;
        EXPECT_EQ(places[static_cast<size_t>(own)], -1);
        places[static_cast<size_t>(own)] = share.begin + i;
      }
    }
  }
  return places;
}

TEST(ParameterShardsTest, EveryElementHasItsPlace) {
  for (const auto& [linear_transformer, pattern] :
       {std::pair(false, "L"), std::pair(true, "L"), std::pair(false, "LN")}) {
    SCOPED_TRACE(pattern);
    const ParameterLayout whole(Config(linear_transformer, 1, 0, pattern));
    for (const int ranks : {1, 2, 3, 4}) {
      std::vector<int> holders(static_cast<size_t>(whole.count()));
      for (int rank = 0; rank < ranks; ++rank) {
        for (const int64_t place : Places(Config(linear_transformer, ranks, rank, pattern))) {
          ASSERT_GE(place, 0);
          ++holders[static_cast<size_t>(place)];
        }
      }
      for (const Parameter& parameter : whole.parameters()) {
        const bool shared_out = parameter.name.find("layers.") != std::string::npos;
        for (int64_t i = 0; i < parameter.count(); ++i) {
          ASSERT_EQ(holders[static_cast<size_t>(parameter.offset + i)], shared_out ? 1 : ranks)
              << parameter.name << " " << i;
        }
      }
    }
  }
}

TEST(ParameterShardsTest, ARankAloneHasAllInOnePiece) {
  const ModelConfig config = Config(false, 1, 0);
  const int64_t count = ParameterLayout(config).count();
  const ParameterShards shards(config);
  EXPECT_TRUE(shards.column_cuts().empty());
  const auto places = shards.PlacesOf({.begin = 3, .count = count - 3, .local = 1});
  ASSERT_EQ(places.size(), 1u);
  EXPECT_EQ(places[0].begin, 3);
  EXPECT_EQ(places[0].count, count - 3);
  EXPECT_EQ(places[0].local, 1);
}

TEST(ParameterShardsTest, HeadsAreRowsOfEachProjectionAndColumnsOfTheOutput) {
  const ModelConfig config = Config(false, 3, 1);
  const ParameterLayout whole(Config(false, 1, 0));
  const ParameterLayout own(config);
  const std::vector<int64_t> places = Places(config);
  const Parameter& projection = own.parameters()[1];
  ASSERT_EQ(projection.name, "model.layers.0.token_mixer.qkvu_proj.weight");
  // Row 17 is the second of the keys of this rank, whose heads begin at column 16 of 48.
  EXPECT_EQ(places[static_cast<size_t>(projection.offset + int64_t{17} * 48)],
            whole.parameters()[1].offset + int64_t{48 + 16 + 1} * 48);
  const Parameter& output = own.parameters()[2];
  ASSERT_EQ(output.name, "model.layers.0.token_mixer.out_proj.weight");
  EXPECT_EQ(places[static_cast<size_t>(output.offset + int64_t{5} * 16 + 3)],
            whole.parameters()[2].offset + int64_t{5} * 48 + 16 + 3);
}

TEST(ParameterShardsTest, KeysAndValuesOfGroupedQueriesAreNarrowerShares) {
  const ModelConfig config = Config(/*linear_transformer=*/true, 3, 1, "N");
  const ParameterLayout whole(Config(/*linear_transformer=*/true, 1, 0, "N"));
  const ParameterLayout own(config);
  const Parameter& projection = own.parameters()[1];
  const std::vector<int64_t> places = Places(config);
  const auto row_of = [&](int64_t row) {
    return (places[static_cast<size_t>(projection.offset + row * 48)] -
            whole.parameters()[1].offset) /
           48;
  };
  EXPECT_EQ(projection.rows, 16 + 8 + 8);
  // Of 48 rows of queries, and 24 each of keys and values.
  EXPECT_EQ(row_of(15), 31);
  EXPECT_EQ(row_of(16), 48 + 8);
  EXPECT_EQ(row_of(31), 48 + 24 + 15);
}

}  // namespace
}  // namespace lasp::worker
