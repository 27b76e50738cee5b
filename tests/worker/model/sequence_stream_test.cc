// A sequence that goes by in macro-chunks gives the gradients of the whole, wherever they end.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/rpc/status_macros.h"
#include "tests/faults/rank/forwarding_backend.h"
#include "tests/worker/model/model_under_test.h"
#include "tests/worker/parallel/sequence_parallel_methods.h"

namespace lasp::worker {
namespace {

struct Outcome {
  ModelConfig config;
  std::vector<double> gradients;
  double loss = 0;
  double evaluated = 0;
  int64_t device_bytes = 0;
};

ModelConfig SmallModel(bool linear_transformer = false) {
  return {.linear_transformer = linear_transformer,
          .layers = 3,
          .hidden_size = 24,
          .heads = 6,
          .glu_size = 24,
          .vocab_size = 31,
          .learned_theta = !linear_transformer};
}

// `slice`: what a rank takes at a time; 0: the whole at once, on one rank.
Outcome Compute(int64_t length, int64_t slice, int sp_size, DType type, bool tied,
                int64_t sequences = 2, const SequenceParallelMethod& method = {},
                bool linear_transformer = false) {
  ModelConfig config = SmallModel(linear_transformer);
  config.tie_embeddings = tied;
  const RandomSequences data = MakeSequences(sequences, length, config.vocab_size, 3);
  const TestedPlan plan{.method = method, .stream_length = slice > 0 ? length : 0};
  const MicroBatchShape shape{.sequences = sequences, .tokens = slice > 0 ? slice : length};
  Outcome outcome;
  ExpectLocalRanks(
      {.sp_size = sp_size, .compute_type = type}, [&](LocalRank& rank) -> absl::Status {
        LASP_ASSIGN_OR_RETURN(const auto model, ModelUnderTest::Create(config, shape, rank, plan));
        model->SetParameters(model->RandomParameters(7, 0.4));
        LASP_ASSIGN_OR_RETURN(const double evaluated, model->Evaluate(data.ids, data.labels));
        // What one leaves behind does not show in the next.
        LASP_RETURN_IF_ERROR(model->Run(data.ids, data.labels).status());
        LASP_ASSIGN_OR_RETURN(const double loss, model->Run(data.ids, data.labels));
        if (rank.grid.rank() == 0) {
          outcome = {.config = config,
                     .gradients = model->Gradients(),
                     .loss = loss,
                     .evaluated = evaluated,
                     .device_bytes = model->memory().total()};
        }
        return absl::OkStatus();
      });
  return outcome;
}

double RelativeRms(const std::vector<double>& actual, const std::vector<double>& expected) {
  double difference = 0;
  double scale = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(actual[i] - expected[i], 2);
    scale += expected[i] * expected[i];
  }
  return std::sqrt(difference / scale);
}

void ExpectSame(const Outcome& actual, const Outcome& expected, double tolerance) {
  ASSERT_EQ(actual.gradients.size(), expected.gradients.size());
  EXPECT_NEAR(actual.loss / expected.loss, 1, tolerance);
  EXPECT_NEAR(actual.evaluated / expected.loss, 1, tolerance);
  const ParameterLayout layout(expected.config);
  for (const Parameter& parameter : layout.parameters()) {
    const auto part = [&](const std::vector<double>& all) {
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(parameter.offset);
      return std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(parameter.count()));
    };
    EXPECT_LE(RelativeRms(part(actual.gradients), part(expected.gradients)), tolerance)
        << parameter.name;
  }
}

// Those whose sequences can go by in macro-chunks.
std::vector<SequenceParallelMethod> StreamingMethods() {
  std::vector<SequenceParallelMethod> methods = EverySequenceParallelMethod();
  methods.erase(std::remove_if(methods.begin(), methods.end(),
                               [](const SequenceParallelMethod& method) {
                                 return method.method ==
                                        lasp::v1::SequenceParallelSpec::METHOD_RING_ATTENTION;
                               }),
                methods.end());
  return methods;
}

class SequenceStreamTest : public ::testing::TestWithParam<SequenceParallelMethod> {
 protected:
  static Outcome Streamed(int64_t length, int64_t slice, int sp_size, DType type, bool tied,
                          int64_t sequences = 2) {
    return Compute(length, slice, sp_size, type, tied, sequences, GetParam());
  }
};

INSTANTIATE_TEST_SUITE_P(Methods, SequenceStreamTest, ::testing::ValuesIn(StreamingMethods()),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST_P(SequenceStreamTest, GradientsAreThoseOfTheWholeSequence) {
  constexpr int64_t kSlice = 37;
  for (const int sp_size : {1, 2, 3}) {
    const int64_t chunk = kSlice * sp_size;
    // Three macro-chunks, of which the last is whole, has one token, one whole slice, one more.
    for (const int64_t rest : {int64_t{0}, int64_t{1}, kSlice, kSlice + 1}) {
      const int64_t length = 3 * chunk + rest;
      SCOPED_TRACE(absl::StrCat("SP ", sp_size, ", rest ", rest));
      const bool tied = rest == 1;
      ExpectSame(Streamed(length, kSlice, sp_size, DType::kFloat64, tied),
                 Compute(length, 0, 1, DType::kFloat64, tied), 1e-12);
    }
  }
}

TEST_P(SequenceStreamTest, AnySizeOfMacroChunkWillDo) {
  constexpr int64_t kLength = 131;
  const Outcome whole = Compute(kLength, 0, 1, DType::kFloat64, false);
  for (const int64_t slice : {1, 5, 64, 65, 130, 131, 1000}) {
    SCOPED_TRACE(absl::StrCat("slices of ", slice));
    ExpectSame(Streamed(kLength, slice, 1, DType::kFloat64, false), whole, 1e-12);
    if (slice > 1) {
      ExpectSame(Streamed(kLength, slice, 3, DType::kFloat64, false), whole, 1e-12);
    }
  }
}

TEST_P(SequenceStreamTest, RanksWithoutAnyTokensDoWhatOthersNeed) {
  for (const int64_t length : {2, 4}) {
    SCOPED_TRACE(absl::StrCat(length, " tokens"));
    ExpectSame(Streamed(length, 1, 3, DType::kFloat64, false),
               Compute(length, 0, 1, DType::kFloat64, false), 1e-12);
  }
}

TEST_P(SequenceStreamTest, ALinearTransformersPositionsAndSumsGoOn) {
  const auto compute = [](int64_t slice, int sp_size, DType type) {
    return Compute(131, slice, sp_size, type, /*tied=*/false, /*sequences=*/2, GetParam(),
                   /*linear_transformer=*/true);
  };
  const Outcome whole = compute(0, 1, DType::kFloat64);
  for (const int64_t slice : {5, 33, 65, 131}) {
    for (const int sp_size : {1, 3}) {
      SCOPED_TRACE(absl::StrCat("slices of ", slice, ", SP ", sp_size));
      ExpectSame(compute(slice, sp_size, DType::kFloat64), whole, 1e-12);
    }
  }
  ExpectSame(compute(16, 2, DType::kFloat32), whole, 1e-5);
}

TEST_P(SequenceStreamTest, AgreesInSinglePrecision) {
  const Outcome whole = Compute(300, 0, 1, DType::kFloat32, false);
  for (const int sp_size : {1, 2, 3}) {
    ExpectSame(Streamed(300, 40, sp_size, DType::kFloat32, false), whole, 1e-5);
  }
}

// Also with short slices, and without a wrap: the same sums in the same order. Whoever has heads of
// all tokens sums otherwise.
TEST(StreamedStatesTest, EveryWayOfPassingThemGivesTheSameBits) {
  const Outcome ring = Compute(300, 40, 3, DType::kFloat32, false);
  for (const SequenceParallelMethod& method : StreamingMethods()) {
    if (method.method != lasp::v1::SequenceParallelSpec::METHOD_ULYSSES &&
        method.method != lasp::v1::SequenceParallelSpec::METHOD_MEGATRON_SP) {
      const Outcome other = Compute(300, 40, 3, DType::kFloat32, false, 2, method);
      EXPECT_EQ(other.loss, ring.loss) << method.name;
      EXPECT_EQ(other.evaluated, ring.evaluated) << method.name;
      EXPECT_EQ(other.gradients, ring.gradients) << method.name;
    }
  }
}

// Remembers every local state.
class StateRecorder final : public ForwardingBackend {
 public:
  StateRecorder(std::unique_ptr<Backend> inner, std::vector<std::vector<float>>* states)
      : ForwardingBackend(inner.get()), inner_(std::move(inner)), states_(*states) {}

  void LocalState(const AttentionShape& shape, Tensor k, Tensor v, Tensor state,
                  Tensor saved_states) override {
    inner_->LocalState(shape, k, v, state, saved_states);
    const auto* const values = static_cast<const float*>(state.data);
    states_.emplace_back(values, values + state.count());
  }

 private:
  const std::unique_ptr<Backend> inner_;
  std::vector<std::vector<float>>& states_;
};

TEST_P(SequenceStreamTest, WhatIsComputedAnewLeavesTheSameStatesToTheBit) {
  constexpr int64_t kSlice = 33;
  constexpr int64_t kChunks = 4;
  const ModelConfig config = SmallModel();
  const auto layers = static_cast<size_t>(config.layers);
  const RandomSequences data = MakeSequences(1, kSlice * kChunks, config.vocab_size, 3);
  std::vector<std::vector<float>> states;
  ExpectLocalRanks(
      {.create_backend = [&]() -> absl::StatusOr<std::unique_ptr<Backend>> {
        LASP_ASSIGN_OR_RETURN(auto cpu, CreateCpuBackend(DType::kFloat32, 1));
        return std::make_unique<StateRecorder>(std::move(cpu), &states);
      }},
      [&](LocalRank& rank) -> absl::Status {
        LASP_ASSIGN_OR_RETURN(
            const auto model,
            ModelUnderTest::Create(config, {.sequences = 1, .tokens = kSlice}, rank,
                                   {.method = GetParam(), .stream_length = kSlice * kChunks}));
        model->SetParameters(model->RandomParameters(7, 0.4));
        return model->Run(data.ids, data.labels).status();
      });
  const MacroChunks chunks(kSlice * kChunks, 1, kSlice);
  ASSERT_EQ(states.size(), layers * static_cast<size_t>(chunks.pass_count()));
  for (int64_t pass = kChunks; pass < chunks.pass_count(); ++pass) {
    const auto first = static_cast<size_t>(chunks.ChunkOfPass(pass)) * layers;
    for (size_t layer = 0; layer < layers; ++layer) {
      EXPECT_EQ(states[static_cast<size_t>(pass) * layers + layer], states[first + layer])
          << "layer " << layer << " of pass " << pass;
    }
  }
}

TEST_P(SequenceStreamTest, DeviceMemoryDoesNotGrowWithTheSequence) {
  constexpr int64_t kSlice = 8;
  constexpr int64_t kShort = 4 * kSlice;
  const auto bytes = [](int64_t length) {
    return Streamed(length, kSlice, 2, DType::kFloat32, false, /*sequences=*/1).device_bytes;
  };
  EXPECT_EQ(bytes(16 * kShort), bytes(kShort));
}

// On three ranks, twice: the second time each waits for up to `most_delay` before some of them.
void ExpectToPass(const SequenceParallelMethod& method, int64_t chunks, absl::Duration most_delay) {
  constexpr int64_t kSlice = 2;
  const ModelConfig config = SmallModel();
  const int64_t length = 3 * kSlice * chunks - 1;
  const RandomSequences data = MakeSequences(1, length, config.vocab_size, 3);
  std::vector<double> losses;
  for (const absl::Duration delay : {absl::ZeroDuration(), most_delay}) {
    ExpectLocalRanks({.sp_size = 3}, [&](LocalRank& rank) -> absl::Status {
      LASP_ASSIGN_OR_RETURN(const auto model,
                            ModelUnderTest::Create(config, {.sequences = 1, .tokens = kSlice}, rank,
                                                   {.method = method, .stream_length = length}));
      model->SetParameters(model->RandomParameters(7, 0.4));
      std::mt19937 random(static_cast<uint32_t>(rank.grid.rank()));
      LASP_ASSIGN_OR_RETURN(const double loss, model->Run(data.ids, data.labels, [&] {
        if (delay > absl::ZeroDuration() && random() % 4 == 0) {
          absl::SleepFor(delay * (random() % 1000) / 1000);
        }
      }));
      if (rank.grid.rank() == 0) {
        losses.push_back(loss);
      }
      return absl::OkStatus();
    });
  }
  ASSERT_EQ(losses.size(), 2u);
  EXPECT_EQ(losses[0], losses[1]);
}

TEST_P(SequenceStreamTest, ManyMacroChunksPassWhateverTheRanksDelay) {
  ExpectToPass(GetParam(), 60, absl::Milliseconds(4));
}

// Nightly.
TEST_P(SequenceStreamTest, DISABLED_AThousandMacroChunksPassWhateverTheRanksDelay) {
  ExpectToPass(GetParam(), 1000, absl::Milliseconds(20));
}

}  // namespace
}  // namespace lasp::worker
