// One layer's linear attention on the GPU with inputs as the model has them: q and k in a buffer of
// their own, v in the packed projection, gradients in another packed one. Everything that a kernel
// writes is poisoned first. Runs whole, or as ranks of a sequence with hops of the state between
// them, and tells how far everything is from the fp64 recurrence.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/cuda/linear_attention.h"
#include "tests/kernels/cuda/linear_attention_recurrence.h"
#include "tests/support/device_array.h"

namespace lasp::kernels {

struct LayerCase {
  int64_t batch = 1;
  int64_t tokens = 0;
  int64_t heads = 1;
  int64_t size = 128;
  std::vector<double> slopes = {};
  bool lrpe = false;
  int segments = 0;
  int ranks = 1;
  bool states_in = true;                      // random KV_in and dKV_in; false: none
  std::vector<int64_t> document_starts = {};  // positions in [0, batch * tokens)
  // Tokens whose values and gradients of the output are a million in every eighth column.
  std::vector<int64_t> outliers = {};
  int64_t first_query = 0;  // tokens before it have queries of zeros
  // Inputs also depend on a seed of the whole process, which is printed, or taken from
  // LASP_TEST_SEED.
  uint64_t seed = 1;
};

struct LayerErrors {
  double output = 0;
  double q_gradient = 0;
  double k_gradient = 0;
  double v_gradient = 0;
  double state = 0;           // KV_out of the last rank
  double state_gradient = 0;  // dKV_out of the first rank
  // Of all heads; with LRPE where no states come in.
  double theta = 0;

  bool Within(double bound, double state_bound) const {
    return output <= bound && q_gradient <= bound && k_gradient <= bound && v_gradient <= bound &&
           state <= state_bound && state_gradient <= state_bound && theta <= 1e-2;
  }

  std::string Text() const {
    char text[200];
    std::snprintf(text, sizeof(text),
                  "o %.2e dq %.2e dk %.2e dv %.2e state %.2e dstate %.2e theta %.2e", output,
                  q_gradient, k_gradient, v_gradient, state, state_gradient, theta);
    return text;
  }
};

class Layer {
 public:
  explicit Layer(const LayerCase& c);

  // Forward and backward over all ranks; the first error of a launch.
  cudaError_t Run();

  // Against the recurrence over the whole sequence.
  LayerErrors Errors() const { return ErrorsFrom(0, 0); }

  // Of the tokens from `first + lead` on, against the recurrence from token `first` on; what the
  // tokens before leave must have decayed over `lead` tokens. Theta's gradient is compared whole:
  // the first query must be there too.
  LayerErrors ErrorsFrom(int64_t first, int64_t lead) const;

  // Writes what Run read and wrote, and what the recurrence has for that, as raw arrays into a
  // folder: the bf16 buffers qk [batch, tokens, 2, heads, size], packed and gradients (of 4 parts,
  // of which the third is v; q, k and v), output_gradient and output (of one); fp64 arrays
  // expected_o, expected_dq, expected_dk and expected_dv [batch, tokens, heads, size]. Whether all
  // were written.
  bool WriteTo(const std::string& folder) const;

  // Everything that Run wrote, to compare runs bit by bit.
  std::vector<unsigned char> Results() const;

  void Poison();

 private:
  uint64_t Seed(uint64_t input) const;

  bool ThetaIsLearned() const { return case_.lrpe && !case_.states_in; }

  using Bf16 = cuda::Bf16;

  // What the recurrence has, from some token on.
  struct Expected {
    testing::DeviceArray<double> output;
    testing::DeviceArray<double> q_gradient;
    testing::DeviceArray<double> k_gradient;
    testing::DeviceArray<double> v_gradient;
    testing::DeviceArray<double> state;
    testing::DeviceArray<double> state_gradient;
    testing::DeviceArray<double> theta_gradient;
  };

  Expected ExpectedFrom(int64_t first) const;

  HeadsView<Bf16> View(const testing::DeviceArray<Bf16>& buffer, int64_t part, int64_t parts,
                       int64_t first_token = 0) const;
  cuda::LinearAttentionProblem ProblemOf(int64_t rank) const;
  int64_t FirstToken(int64_t rank) const;

  LayerCase case_;
  int64_t hidden_;
  int64_t state_elements_;
  testing::DeviceArray<double> slopes_;
  testing::DeviceArray<double> theta_;
  testing::DeviceArray<Bf16> qk_;
  testing::DeviceArray<Bf16> packed_;
  testing::DeviceArray<Bf16> output_gradient_;
  testing::DeviceArray<Bf16> output_;
  testing::DeviceArray<Bf16> gradients_;         // packed
  testing::DeviceArray<float> states_;           // [ranks + 1]: the first is KV_in
  testing::DeviceArray<float> state_gradients_;  // [ranks + 1]: the last is dKV_in
  testing::DeviceArray<float> local_;
  std::vector<testing::DeviceArray<float>> segment_states_;  // a rank each
  testing::DeviceArray<uint8_t> starts_;
  std::vector<testing::DeviceArray<uint64_t>> marks_;
  testing::DeviceArray<float> theta_gradient_;
};

}  // namespace lasp::kernels
