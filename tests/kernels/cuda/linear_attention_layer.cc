#include "tests/kernels/cuda/linear_attention_layer.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>

#include "kernels/lrpe.h"

namespace lasp::kernels {
namespace {

using testing::DeviceArray;

template <typename T>
void Append(const DeviceArray<T>& array, std::vector<unsigned char>& bytes) {
  const std::vector<T> values = array.Download();
  const auto* data = reinterpret_cast<const unsigned char*>(values.data());
  bytes.insert(bytes.end(), data, data + values.size() * sizeof(T));
}

std::vector<double> ThetaOf(const LayerCase& c) {
  std::vector<double> theta(static_cast<size_t>(c.heads * c.size));
  LrpeTheta(c.heads, c.size, theta.data());
  return theta;
}

// Fresh inputs in every run of the program.
uint64_t ProcessSeed() {
  static const uint64_t seed = [] {
    const char* const given = std::getenv("LASP_TEST_SEED");
    const uint64_t value =
        given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
    std::fprintf(stderr, "LASP_TEST_SEED=%llu\n", static_cast<unsigned long long>(value));
    return value;
  }();
  return seed;
}

template <typename T>
void PoisonArray(const DeviceArray<T>& array) {
  EXPECT_EQ(cudaMemset(array.data(), 0xff, static_cast<size_t>(array.bytes())), cudaSuccess);
}

}  // namespace

Layer::Layer(const LayerCase& c)
    : case_(c),
      hidden_(c.heads * c.size),
      state_elements_(c.batch * c.heads * c.size * c.size * (c.lrpe ? 2 : 1)),
      slopes_(c.slopes),
      theta_(ThetaOf(c)),
      qk_(c.batch * c.tokens * 2 * hidden_),
      packed_(c.batch * c.tokens * 4 * hidden_),
      output_gradient_(c.batch * c.tokens * hidden_),
      output_(c.batch * c.tokens * hidden_),
      gradients_(c.batch * c.tokens * 4 * hidden_),
      states_((c.ranks + 1) * state_elements_),
      state_gradients_((c.ranks + 1) * state_elements_),
      local_(state_elements_),
      starts_(c.batch * c.tokens),
      theta_gradient_(hidden_) {
  EXPECT_EQ(FillNormal(qk_.count(), Seed(0), 1, qk_.data()), cudaSuccess);
  EXPECT_EQ(FillNormal(packed_.count(), Seed(1), 1, packed_.data()), cudaSuccess);
  EXPECT_EQ(FillNormal(output_gradient_.count(), Seed(2), 1, output_gradient_.data()), cudaSuccess);
  const size_t row_bytes = static_cast<size_t>(hidden_) * sizeof(Bf16);
  EXPECT_EQ(cudaMemset2D(qk_.data(), 2 * row_bytes, 0, row_bytes,
                         static_cast<size_t>(c.batch * c.first_query)),
            cudaSuccess);
  const auto million = static_cast<Bf16>(1e6F);
  for (const int64_t token : c.outliers) {
    for (int64_t i = 0; i < hidden_ / 8; ++i) {
      packed_.Upload((token * 4 + 2) * hidden_ + 8 * i, {million});
      output_gradient_.Upload(token * hidden_ + 8 * i, {million});
    }
  }
  std::vector<uint8_t> starts(static_cast<size_t>(c.batch * c.tokens), 0);
  for (const int64_t start : c.document_starts) {
    starts[static_cast<size_t>(start)] = 1;
  }
  starts_.Upload(0, starts);
  for (int rank = 0; rank < c.ranks; ++rank) {
    const cuda::LinearAttentionProblem problem = ProblemOf(rank);
    segment_states_.emplace_back(2 * cuda::SegmentStateElements(problem));
    std::vector<int64_t> local_starts;
    for (const int64_t start : c.document_starts) {
      const int64_t token = start % c.tokens - FirstToken(rank);
      if (token >= 0 && token < problem.shape.tokens) {
        local_starts.push_back(start / c.tokens * problem.shape.tokens + token);
      }
    }
    marks_.emplace_back(c.batch * BlockCount(problem.shape));
    const DeviceArray<int64_t> device_starts(local_starts);
    EXPECT_EQ(cuda::MarkDocumentStarts({.batch = c.batch,
                                        .tokens = problem.shape.tokens,
                                        .starts = device_starts.data(),
                                        .count = static_cast<int64_t>(local_starts.size()),
                                        .marks = marks_.back().data()},
                                       nullptr),
              cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
  Poison();
}

uint64_t Layer::Seed(uint64_t input) const {
  return (ProcessSeed() << 16) + 8 * case_.seed + input;
}

void Layer::Poison() {
  PoisonArray(output_);
  PoisonArray(gradients_);
  PoisonArray(states_);
  PoisonArray(state_gradients_);
  PoisonArray(local_);
  for (const DeviceArray<float>& states : segment_states_) {
    PoisonArray(states);
  }
  EXPECT_EQ(cudaMemset(theta_gradient_.data(), 0, static_cast<size_t>(theta_gradient_.bytes())),
            cudaSuccess);
  if (case_.states_in) {
    EXPECT_EQ(FillNormal(state_elements_, Seed(3), 3, states_.data()), cudaSuccess);
    EXPECT_EQ(FillNormal(state_elements_, Seed(4), 3,
                         state_gradients_.data() + case_.ranks * state_elements_),
              cudaSuccess);
  }
}

int64_t Layer::FirstToken(int64_t rank) const { return case_.tokens * rank / case_.ranks; }

HeadsView<cuda::Bf16> Layer::View(const DeviceArray<Bf16>& buffer, int64_t part, int64_t parts,
                                  int64_t first_token) const {
  return {buffer.data() + first_token * parts * hidden_ + part * hidden_,
          case_.tokens * parts * hidden_, parts * hidden_, case_.size};
}

cuda::LinearAttentionProblem Layer::ProblemOf(int64_t rank) const {
  cuda::LinearAttentionProblem problem;
  problem.shape = {.batch = case_.batch,
                   .tokens = FirstToken(rank + 1) - FirstToken(rank),
                   .heads = case_.heads,
                   .key_size = case_.size,
                   .value_size = case_.size,
                   .slopes = slopes_.data(),
                   .theta = case_.lrpe ? theta_.data() : nullptr};
  problem.segments = case_.segments;
  if (!case_.document_starts.empty() && static_cast<size_t>(rank) < marks_.size()) {
    problem.document_marks = marks_[static_cast<size_t>(rank)].data();
  }
  return problem;
}

cudaError_t Layer::Run() {
  std::vector<cudaError_t> errors;
  const int ranks = case_.ranks;
  const auto state_of = [&](const DeviceArray<float>& states, int rank) -> float* {
    return states.data() + rank * state_elements_;
  };
  for (int rank = 0; rank < ranks; ++rank) {
    const cuda::LinearAttentionProblem problem = ProblemOf(rank);
    const int64_t first = FirstToken(rank);
    float* const segment_states = segment_states_[static_cast<size_t>(rank)].data();
    const float* const state_in = rank > 0 || case_.states_in ? state_of(states_, rank) : nullptr;
    errors.push_back(cuda::LocalState({.problem = problem,
                                       .k = View(qk_, 1, 2, first),
                                       .v = View(packed_, 2, 4, first),
                                       .segment_states = segment_states,
                                       .state = local_.data()},
                                      nullptr));
    errors.push_back(
        cuda::StateHop({problem, state_in, local_.data(), state_of(states_, rank + 1)}, nullptr));
    errors.push_back(cuda::Output({.problem = problem,
                                   .q = View(qk_, 0, 2, first),
                                   .k = View(qk_, 1, 2, first),
                                   .v = View(packed_, 2, 4, first),
                                   .segment_states = segment_states,
                                   .state_in = state_in,
                                   .output = View(output_, 0, 1, first),
                                   .segment_starts = segment_states},
                                  nullptr));
  }
  for (int rank = ranks - 1; rank >= 0; --rank) {
    const cuda::LinearAttentionProblem problem = ProblemOf(rank);
    const int64_t first = FirstToken(rank);
    float* const segment_states = segment_states_[static_cast<size_t>(rank)].data();
    float* const segment_gradients = segment_states + cuda::SegmentStateElements(problem);
    const float* const gradient_in =
        rank + 1 < ranks || case_.states_in ? state_of(state_gradients_, rank + 1) : nullptr;
    const HeadsView<Bf16> q = View(qk_, 0, 2, first);
    const HeadsView<Bf16> k = View(qk_, 1, 2, first);
    const HeadsView<Bf16> v = View(packed_, 2, 4, first);
    const HeadsView<Bf16> output_gradient = View(output_gradient_, 0, 1, first);
    errors.push_back(cuda::LocalStateGradient({.problem = problem,
                                               .q = q,
                                               .output_gradient = output_gradient,
                                               .segment_state_gradients = segment_gradients,
                                               .state_gradient = local_.data()},
                                              nullptr));
    errors.push_back(cuda::StateGradientHop(
        {problem, gradient_in, local_.data(), state_of(state_gradients_, rank)}, nullptr));
    errors.push_back(cuda::QueryGradient({.problem = problem,
                                          .k = k,
                                          .v = v,
                                          .output_gradient = output_gradient,
                                          .segment_starts = segment_states,
                                          .q_gradient = View(gradients_, 0, 4, first)},
                                         nullptr));
    errors.push_back(cuda::KeyValueGradient({.problem = problem,
                                             .q = q,
                                             .k = k,
                                             .v = v,
                                             .output_gradient = output_gradient,
                                             .segment_state_gradients = segment_gradients,
                                             .state_gradient_in = gradient_in,
                                             .k_gradient = View(gradients_, 1, 4, first),
                                             .v_gradient = View(gradients_, 2, 4, first)},
                                            nullptr));
    if (ThetaIsLearned()) {
      const DeviceArray<float> workspace(cuda::ThetaGradientWorkspaceElements(problem));
      errors.push_back(cuda::ThetaGradient({.problem = problem,
                                            .q = q,
                                            .k = k,
                                            .v = v,
                                            .output_gradient = output_gradient,
                                            .segment_starts = segment_states,
                                            .segment_state_gradients = segment_gradients,
                                            .state_gradient_in = gradient_in,
                                            .workspace = workspace.data(),
                                            .theta_gradient = theta_gradient_.data()},
                                           nullptr));
      errors.push_back(cudaDeviceSynchronize());  // before the workspace goes
    }
  }
  errors.push_back(cudaDeviceSynchronize());
  const auto failed = std::find_if(errors.begin(), errors.end(),
                                   [](cudaError_t error) { return error != cudaSuccess; });
  return failed == errors.end() ? cudaSuccess : *failed;
}

Layer::Expected Layer::ExpectedFrom(int64_t first) const {
  const LayerCase& c = case_;
  const bool whole = first == 0;
  const int64_t tokens = c.tokens - first;
  const int64_t elements = c.batch * tokens * hidden_;
  Expected expected = {
      .output = DeviceArray<double>(elements),
      .q_gradient = DeviceArray<double>(elements),
      .k_gradient = DeviceArray<double>(elements),
      .v_gradient = DeviceArray<double>(elements),
      .state = DeviceArray<double>(state_elements_),
      .state_gradient = DeviceArray<double>(state_elements_),
      .theta_gradient = DeviceArray<double>(std::vector<double>(static_cast<size_t>(hidden_), 0))};
  Recurrence reference;
  reference.shape = ProblemOf(0).shape;
  reference.shape.tokens = tokens;
  reference.starts = whole ? starts_.data() : nullptr;
  reference.q = View(qk_, 0, 2, first);
  reference.k = View(qk_, 1, 2, first);
  reference.v = View(packed_, 2, 4, first);
  reference.output_gradient = View(output_gradient_, 0, 1, first);
  if (c.states_in) {
    reference.state_in = whole ? states_.data() : nullptr;
    reference.state_gradient_in = state_gradients_.data() + c.ranks * state_elements_;
  }
  reference.output = expected.output.data();
  reference.q_gradient = expected.q_gradient.data();
  reference.k_gradient = expected.k_gradient.data();
  reference.v_gradient = expected.v_gradient.data();
  reference.state_out = expected.state.data();
  reference.state_gradient_out = whole ? expected.state_gradient.data() : nullptr;
  if (ThetaIsLearned()) {
    reference.theta_gradient = expected.theta_gradient.data();
  }
  EXPECT_EQ(RunRecurrence(reference), cudaSuccess);
  return expected;
}

LayerErrors Layer::ErrorsFrom(int64_t first, int64_t lead) const {
  const LayerCase& c = case_;
  const Expected expected = ExpectedFrom(first);
  // `lead` is not 0 only for one row of a batch.
  const auto error = [&](const DeviceArray<Bf16>& buffer, int64_t part, int64_t parts,
                         const DeviceArray<double>& values) {
    return WorstHeadError(View(buffer, part, parts, first + lead), values.data() + lead * hidden_,
                          c.batch, c.tokens - first - lead, c.heads, c.size);
  };
  const int64_t pairs = c.batch * c.heads;
  LayerErrors errors;
  errors.output = error(output_, 0, 1, expected.output);
  errors.q_gradient = error(gradients_, 0, 4, expected.q_gradient);
  errors.k_gradient = error(gradients_, 1, 4, expected.k_gradient);
  errors.v_gradient = error(gradients_, 2, 4, expected.v_gradient);
  errors.state = WorstHeadError(states_.data() + c.ranks * state_elements_, expected.state.data(),
                                pairs, state_elements_ / pairs);
  if (first == 0) {
    errors.state_gradient = WorstHeadError(state_gradients_.data(), expected.state_gradient.data(),
                                           pairs, state_elements_ / pairs);
  }
  if (ThetaIsLearned()) {
    errors.theta =
        WorstHeadError(theta_gradient_.data(), expected.theta_gradient.data(), 1, hidden_);
  }
  return errors;
}

bool Layer::WriteTo(const std::string& folder) const {
  const Expected expected = ExpectedFrom(0);
  const auto write = [&](const char* name, const auto& array) {
    std::ofstream file(folder + "/" + name, std::ios::binary);
    const auto values = array.Download();
    file.write(reinterpret_cast<const char*>(values.data()), array.bytes());
    file.close();
    return !file.fail();
  };
  return write("qk", qk_) && write("packed", packed_) && write("gradients", gradients_) &&
         write("output_gradient", output_gradient_) && write("output", output_) &&
         write("expected_o", expected.output) && write("expected_dq", expected.q_gradient) &&
         write("expected_dk", expected.k_gradient) && write("expected_dv", expected.v_gradient);
}

std::vector<unsigned char> Layer::Results() const {
  std::vector<unsigned char> bytes;
  Append(output_, bytes);
  Append(gradients_, bytes);
  Append(states_, bytes);
  Append(state_gradients_, bytes);
  Append(theta_gradient_, bytes);
  return bytes;
}

}  // namespace lasp::kernels
