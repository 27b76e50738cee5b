// The attention that rounds as a GPU's does is the CPU's attention but for the rounding.
#include "tests/worker/device/rounding_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "kernels/lrpe.h"
#include "tests/worker/device/bf16_cpu_backend.h"

namespace lasp::worker {
namespace {

constexpr int64_t kBatch = 2;
constexpr int64_t kTokens = 150;
constexpr int64_t kHeads = 3;
constexpr int64_t kSize = 16;
constexpr int64_t kHidden = kHeads * kSize;

using Results = std::map<std::string, std::vector<float>>;

// Tensors of one backend that live as long as it.
class Attention {
 public:
  Attention(Backend* backend, bool lrpe) : backend_(*backend) {
    shape_ = {.batch = kBatch,
              .tokens = kTokens,
              .heads = kHeads,
              .head_size = kSize,
              .lrpe = lrpe,
              .slopes = Take(DType::kFloat64, 1, kHeads),
              .theta = Take(DType::kFloat64, kHeads, kSize)};
    const std::vector<double> slopes = {0, 0.02, 0.99};
    backend_.CopyFromHost(slopes.data(), shape_.slopes);
    std::vector<double> theta(static_cast<size_t>(kHidden));
    kernels::LrpeTheta(kHeads, kSize, theta.data());
    backend_.CopyFromHost(theta.data(), shape_.theta);
  }

  // Forward and backward with states from both sides.
  Results Run() {
    const Tensor q = Random(1);
    const Tensor k = Random(2);
    const Tensor v = Random(3);
    const Tensor d_o = Random(4);
    const Tensor state_in = RandomState(5);
    const Tensor gradient_in = RandomState(6);
    const Tensor local = State();
    const Tensor local_gradient = State();
    const int64_t saved = shape_.state_matrix_rows() * backend_.SavedStateCount(shape_);
    const Tensor saved_states = Take(DType::kFloat32, saved, kSize);
    const Tensor saved_gradients = Take(DType::kFloat32, saved, kSize);
    const Tensor output = Activation();
    const Tensor d_q = Activation();
    const Tensor d_k = Activation();
    const Tensor d_v = Activation();
    const Tensor d_theta = shape_.lrpe ? Take(DType::kFloat32, kHeads, kSize) : Tensor{};
    backend_.LocalState(shape_, k, v, local, saved_states);
    const AttentionForward forward{.q = q,
                                   .k = k,
                                   .v = v,
                                   .saved_states = saved_states,
                                   .state_in = state_in,
                                   .output = output};
    backend_.BeginOutput(shape_, forward);
    backend_.EndOutput(shape_, forward);
    backend_.LocalStateGradient(shape_, q, d_o, local_gradient, saved_gradients);
    const AttentionBackward backward{.q = q,
                                     .k = k,
                                     .v = v,
                                     .output_gradient = d_o,
                                     .saved_states = saved_states,
                                     .saved_gradients = saved_gradients,
                                     .state_in = state_in,
                                     .state_gradient_in = gradient_in,
                                     .q_gradient = d_q,
                                     .k_gradient = d_k,
                                     .v_gradient = d_v,
                                     .theta_gradient = d_theta};
    backend_.BeginGradients(shape_, backward);
    backend_.EndGradients(shape_, backward);
    Results results = {{"output", Read(output)},
                       {"q", Read(d_q)},
                       {"k", Read(d_k)},
                       {"v", Read(d_v)},
                       {"local state", Read(local)},
                       {"local gradient", Read(local_gradient)}};
    if (shape_.lrpe) {
      results["theta"] = Read(d_theta);
    }
    return results;
  }

 private:
  Tensor Take(DType type, int64_t rows, int64_t columns) {
    buffers_.push_back(backend_.Allocate(rows * columns * SizeOf(type)).value());
    return {buffers_.back()->data(), type, rows, columns, columns};
  }

  Tensor Activation() { return Take(backend_.activation_type(), kBatch * kTokens, kHidden); }

  Tensor State() { return Take(DType::kFloat32, shape_.state_matrix_rows(), kSize); }

  std::vector<float> RandomValues(int64_t count, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) {
      value = normal(random);
    }
    return values;
  }

  // The same values whatever the backend's type: such as bf16 holds.
  Tensor Random(uint32_t seed) {
    const Tensor tensor = Activation();
    const Tensor wide = Take(DType::kFloat32, tensor.rows, tensor.columns);
    const Tensor narrow = Take(DType::kBFloat16, tensor.rows, tensor.columns);
    backend_.CopyFromHost(RandomValues(tensor.count(), seed).data(), wide);
    const auto rounding = CreateBf16CpuBackend(1);
    rounding->Convert(wide, narrow);
    rounding->Convert(narrow, tensor);
    return tensor;
  }

  Tensor RandomState(uint32_t seed) {
    const Tensor tensor = State();
    backend_.CopyFromHost(RandomValues(tensor.count(), seed).data(), tensor);
    return tensor;
  }

  std::vector<float> Read(Tensor tensor) {
    const Tensor wide = Take(DType::kFloat32, tensor.rows, tensor.columns);
    CreateBf16CpuBackend(1)->Convert(tensor, wide);
    std::vector<float> values(static_cast<size_t>(wide.count()));
    backend_.CopyToHost(wide, values.data());
    return values;
  }

  Backend& backend_;
  AttentionShape shape_;
  std::vector<std::unique_ptr<DeviceBuffer>> buffers_;
};

double RelativeRms(const std::vector<float>& actual, const std::vector<float>& expected) {
  double difference = 0;
  double scale = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double e = static_cast<double>(expected[i]);
    difference += std::pow(static_cast<double>(actual[i]) - e, 2);
    scale += e * e;
  }
  return std::sqrt(difference / scale);
}

TEST(RoundingAttentionTest, DiffersFromTheCpusByItsRoundingAlone) {
  const auto fp32 = CreateCpuBackend(DType::kFloat32, 1).value();
  const auto bf16 = CreateBf16CpuBackend(1);
  for (const bool lrpe : {false, true}) {
    const Results expected = Attention(fp32.get(), lrpe).Run();
    const Results actual = Attention(bf16.get(), lrpe).Run();
    for (const auto& [name, values] : expected) {
      const double error = RelativeRms(actual.at(name), values);
      EXPECT_LE(error, 5e-3) << name << " lrpe " << lrpe;
      EXPECT_GE(error, 1e-4) << name << " lrpe " << lrpe << " is not rounded";
    }
  }
}

}  // namespace
}  // namespace lasp::worker
