// Documents packed into sequences: the loss and the gradients of each document computed alone,
// wherever they start, however the ranks share the sequences and whatever they keep.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/sequence_parallel_support.h"
#include "tests/worker/model/computed_gradients.h"
#include "tests/worker/model/model_under_test.h"
#include "tests/worker/parallel/sequence_parallel_methods.h"

namespace lasp::worker {
namespace {

constexpr int64_t kSequences = 2;
// Slices of 144, 72, 48 and 36 tokens: blocks of 64 end inside some.
constexpr int64_t kLength = 144;

using Starts = std::vector<std::vector<int64_t>>;

struct Layout {
  const char* name = "";
  Starts starts = {};  // of each sequence
};

std::vector<int64_t> EveryToken() {
  std::vector<int64_t> every;
  for (int64_t at = 1; at < kLength; ++at) {
    every.push_back(at);
  }
  return every;
}

std::vector<Layout> Layouts() {
  return {{"at ranks' borders", {{36, 72, 108}, {48, 96}}},
          {"one before, one after", {{35, 37, 71, 107, 109}, {47, 73, 97}}},
          {"several in a rank", {{3, 5, 6, 7, 20, 64, 70}, {90, 140, 143}}},
          {"over three ranks", {{20, 120}, {}}},
          {"of one token each", {EveryToken(), {1, 2, 143}}}};
}

struct Model {
  const char* name = "";
  bool linear_transformer = false;
  const char* pattern = "L";

  bool softmax() const { return absl::StrContains(pattern, 'N'); }
};

// Two heads of queries to one of keys in softmax attention.
ModelConfig Config(const Model& model) {
  return {.linear_transformer = model.linear_transformer,
          .layers = 2,
          .hidden_size = 48,
          .heads = model.softmax() ? 24 : 12,
          .glu_size = 24,
          .vocab_size = 13,
          .tie_embeddings = true,
          .learned_theta = !model.linear_transformer && model.pattern[0] == 'L',
          .layer_pattern = model.pattern,
          .kv_heads = model.softmax() ? 12 : 0};
}

// Sequences whose documents' last tokens predict nothing.
RandomSequences PackedSequences(const Starts& starts, int64_t vocab_size) {
  RandomSequences data = MakeSequences(kSequences, kLength, vocab_size, 3);
  for (size_t sequence = 0; sequence < starts.size(); ++sequence) {
    for (const int64_t start : starts[sequence]) {
      data.labels[sequence * kLength + static_cast<size_t>(start) - 1] = -1;
    }
  }
  return data;
}

int64_t CountOf(const std::vector<int32_t>& labels) {
  return std::count_if(labels.begin(), labels.end(), [](int32_t label) { return label >= 0; });
}

struct Result {
  double loss = 0;
  std::vector<double> gradients;
};

constexpr uint32_t kSeed = 7;
constexpr double kDeviation = 0.2;

// Each document in a model of its own, on one rank in fp64, its positions as in its sequence.
Result DocumentByDocument(const Starts& starts, const Model& tested) {
  const ModelConfig config = Config(tested);
  const RandomSequences data = PackedSequences(starts, config.vocab_size);
  Result result;
  result.gradients.resize(static_cast<size_t>(ParameterLayout(config).count()));
  ExpectLocalRanks({.compute_type = DType::kFloat64}, [&](LocalRank& rank) -> absl::Status {
    for (size_t sequence = 0; sequence < starts.size(); ++sequence) {
      std::vector<int64_t> borders = starts[sequence];
      borders.insert(borders.begin(), 0);
      borders.push_back(kLength);
      for (size_t i = 0; i + 1 < borders.size(); ++i) {
        const int64_t tokens = borders[i + 1] - borders[i];
        const auto begin = static_cast<std::ptrdiff_t>(sequence) * kLength + borders[i];
        const auto part = [&](const std::vector<int32_t>& of) {
          return std::vector<int32_t>(of.begin() + begin, of.begin() + begin + tokens);
        };
        const std::vector<int32_t> labels = part(data.labels);
        if (CountOf(labels) == 0) {
          continue;
        }
        LASP_ASSIGN_OR_RETURN(const auto model,
                              ModelUnderTest::Create(config, {.sequences = 1, .tokens = tokens},
                                                     rank, {.first_position = borders[i]}));
        model->SetParameters(model->RandomParameters(kSeed, kDeviation));
        LASP_ASSIGN_OR_RETURN(const double loss, model->Run(part(data.ids), labels));
        const double share =
            static_cast<double>(CountOf(labels)) / static_cast<double>(CountOf(data.labels));
        result.loss += share * loss;
        const std::vector<double> gradients = model->Gradients();
        for (size_t c = 0; c < gradients.size(); ++c) {
          result.gradients[c] += share * gradients[c];
        }
      }
    }
    return absl::OkStatus();
  });
  return result;
}

// How the ranks compute it.
struct Way {
  Layout layout = {};
  SequenceParallelMethod method = {};
  Recomputation recomputation = Recomputation::kNothing;
  // Where given, sequences go by in macro-chunks of so many tokens a rank.
  int64_t slice = 0;
  // The documents' starts are not told.
  bool joined = false;

  std::string Describe() const {
    return absl::StrCat(layout.name, ", ", method.name, ", recomputation ", recomputation,
                        ", slices of ", slice);
  }
};

struct Ranks {
  int sp_size = 1;
  DType type = DType::kFloat64;
  Model model = {};
};

// Of each way, in the first rank of a world that goes all of them; the other ranks give the same.
std::vector<Result> Pack(const Ranks& ranks, const std::vector<Way>& ways) {
  const ModelConfig config = Config(ranks.model);
  std::vector<std::vector<Result>> results(static_cast<size_t>(ranks.sp_size));
  ExpectLocalRanks(
      {.sp_size = ranks.sp_size, .compute_type = ranks.type}, [&](LocalRank& rank) -> absl::Status {
        for (const Way& way : ways) {
          const RandomSequences data = PackedSequences(way.layout.starts, config.vocab_size);
          const int64_t tokens = way.slice > 0 ? way.slice : kLength / ranks.sp_size;
          LASP_ASSIGN_OR_RETURN(
              const auto model,
              ModelUnderTest::Create(config, {.sequences = kSequences, .tokens = tokens}, rank,
                                     {.method = way.method,
                                      .recomputation = way.recomputation,
                                      .stream_length = way.slice > 0 ? kLength : 0,
                                      .documents = way.joined ? Starts{} : way.layout.starts}));
          model->SetParameters(model->RandomParameters(kSeed, kDeviation));
          LASP_ASSIGN_OR_RETURN(const double loss, model->Run(data.ids, data.labels));
          results[static_cast<size_t>(rank.grid.rank())].push_back(
              {.loss = loss, .gradients = model->Gradients()});
        }
        return absl::OkStatus();
      });
  for (const std::vector<Result>& result : results) {
    for (size_t way = 0; way < results[0].size(); ++way) {
      EXPECT_EQ(result[way].loss, results[0][way].loss);
      EXPECT_EQ(result[way].gradients, results[0][way].gradients);
    }
  }
  return results[0];
}

// Of each layout.
std::vector<Result> ExpectedOf(const Model& model) {
  std::vector<Result> expected;
  for (const Layout& layout : Layouts()) {
    expected.push_back(DocumentByDocument(layout.starts, model));
  }
  return expected;
}

// Every layout in each of `ways`, whose own layout is not read.
void ExpectAsAlone(const Ranks& ranks, const std::vector<Way>& ways,
                   const std::vector<Result>& expected) {
  const double bar = ranks.type == DType::kFloat64 ? 1e-12 : 1e-5;
  const ParameterLayout parameters(Config(ranks.model));
  std::vector<Way> all;
  for (const Layout& layout : Layouts()) {
    for (Way way : ways) {
      way.layout = layout;
      all.push_back(way);
    }
  }
  const std::vector<Result> results = Pack(ranks, all);
  ASSERT_EQ(results.size(), all.size());
  double worst = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE(absl::StrCat(all[i].Describe(), ", SP ", ranks.sp_size));
    const Result& alone = expected[i / ways.size()];
    EXPECT_NEAR(results[i].loss / alone.loss, 1, bar);
    for (const Parameter& parameter : parameters.parameters()) {
      const double error = RelativeRms(results[i].gradients, alone.gradients, parameter);
      EXPECT_LE(error, bar) << parameter.name;
      worst = std::max(worst, error);
    }
  }
  std::printf("SP %d: gradients within %.1e relative RMS of the documents alone\n", ranks.sp_size,
              worst);
}

// Those that keep the documents of a model apart.
std::vector<SequenceParallelMethod> PackingMethods(const Model& model) {
  lasp::v1::ModelSpec spec;
  spec.set_layers(2);
  spec.set_layer_pattern(model.pattern);
  std::vector<SequenceParallelMethod> methods = EverySequenceParallelMethod();
  methods.erase(std::remove_if(methods.begin(), methods.end(),
                               [&spec](const SequenceParallelMethod& method) {
                                 return !ReasonAgainstPacking(method.method, spec).empty();
                               }),
                methods.end());
  return methods;
}

class PackedDocumentsTest : public ::testing::TestWithParam<Model> {
 protected:
  static Ranks RanksOf(int sp_size, DType type) {
    return {.sp_size = sp_size, .type = type, .model = GetParam()};
  }
};

std::string NameOf(const ::testing::TestParamInfo<Model>& tested) { return tested.param.name; }

constexpr Model kLinearModels[] = {{.name = "TransNormer"},
                                   {.name = "LinearTransformer", .linear_transformer = true}};

INSTANTIATE_TEST_SUITE_P(Models, PackedDocumentsTest, ::testing::ValuesIn(kLinearModels), NameOf);
INSTANTIATE_TEST_SUITE_P(SoftmaxLayers, PackedDocumentsTest,
                         ::testing::Values(Model{.name = "AmongLinear", .pattern = "LN"},
                                           Model{.name = "BeforeNormalised",
                                                 .linear_transformer = true,
                                                 .pattern = "NL"},
                                           Model{.name = "Alone", .pattern = "N"}),
                         NameOf);

TEST_P(PackedDocumentsTest, AreComputedAsIfEachWereAlone) {
  const std::vector<Result> expected = ExpectedOf(GetParam());
  std::vector<Way> ways;
  for (const SequenceParallelMethod& method : PackingMethods(GetParam())) {
    ways.push_back({.method = method});
  }
  const std::vector<Way> kept = ways;
  ExpectAsAlone(RanksOf(1, DType::kFloat64), ways, expected);
  ExpectAsAlone(RanksOf(2, DType::kFloat64), ways, expected);
  ExpectAsAlone(RanksOf(4, DType::kFloat64), ways, expected);
  for (const SequenceParallelMethod& method : PackingMethods(GetParam())) {
    ways.push_back({.method = method, .recomputation = Recomputation::kBlock});
  }
  ways.push_back({.recomputation = Recomputation::kCheapest});
  ExpectAsAlone(RanksOf(3, DType::kFloat64), ways, expected);
  ExpectAsAlone(RanksOf(3, DType::kFloat32), kept, expected);
}

TEST_P(PackedDocumentsTest, OneDocumentIsAJoinedSequenceToTheBit) {
  const Layout none{"no border", Starts(kSequences)};
  std::vector<Way> ways;
  for (const SequenceParallelMethod& method : PackingMethods(GetParam())) {
    for (const int64_t slice : {0, 13}) {
      if (slice == 0 || !GetParam().softmax()) {
        ways.push_back({.layout = none, .method = method, .slice = slice});
        ways.push_back({.layout = none, .method = method, .slice = slice, .joined = true});
      }
    }
  }
  const std::vector<Result> results = Pack(RanksOf(3, DType::kFloat32), ways);
  ASSERT_EQ(results.size(), ways.size());
  for (size_t i = 0; i < ways.size(); i += 2) {
    EXPECT_EQ(results[i].loss, results[i + 1].loss) << ways[i].Describe();
    EXPECT_EQ(results[i].gradients, results[i + 1].gradients) << ways[i].Describe();
  }
}

// The ways of passing states do the same arithmetic in the same order.
TEST_P(PackedDocumentsTest, EveryWayOfPassingStatesGivesTheSameBits) {
  std::vector<Way> ways;
  for (const Layout& layout : Layouts()) {
    for (const SequenceParallelMethod& method : PackingMethods(GetParam())) {
      if (method.method == lasp::v1::SequenceParallelSpec::METHOD_LASP ||
          method.method == lasp::v1::SequenceParallelSpec::METHOD_LASP2 ||
          method.method == lasp::v1::SequenceParallelSpec::METHOD_ALL_SCAN) {
        ways.push_back({.layout = layout, .method = method});
      }
    }
  }
  const std::vector<Result> results = Pack(RanksOf(4, DType::kFloat32), ways);
  ASSERT_EQ(results.size(), ways.size());
  for (size_t i = 0; i < ways.size(); ++i) {
    const Result& ring = results[i / 3 * 3];
    EXPECT_EQ(results[i].loss, ring.loss) << ways[i].Describe();
    EXPECT_EQ(results[i].gradients, ring.gradients) << ways[i].Describe();
  }
}

// Those whose sequences go by in macro-chunks.
class StreamedDocumentsTest : public ::testing::TestWithParam<Model> {};

INSTANTIATE_TEST_SUITE_P(Models, StreamedDocumentsTest, ::testing::ValuesIn(kLinearModels), NameOf);

// Documents that start where macro-chunks do, and ones with short and empty slices at the end.
TEST_P(StreamedDocumentsTest, AreTheSameInMacroChunks) {
  const std::vector<Result> expected = ExpectedOf(GetParam());
  for (const auto& [sp_size, slice] :
       {std::pair(1, 33), std::pair(2, 32), std::pair(3, 11), std::pair(3, 29)}) {
    std::vector<Way> ways;
    for (const SequenceParallelMethod& method : PackingMethods(GetParam())) {
      ways.push_back({.method = method, .slice = slice});
    }
    ExpectAsAlone({.sp_size = sp_size, .model = GetParam()}, ways, expected);
  }
  ExpectAsAlone({.sp_size = 2, .type = DType::kFloat32, .model = GetParam()}, {{.slice = 20}},
                expected);
}

}  // namespace
}  // namespace lasp::worker
