#include "worker/model/parameter_init.h"

#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/lrpe.h"

namespace lasp::worker {
namespace {

// FNV-1a: a parameter's stream follows from its name alone.
uint64_t StreamOf(absl::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return hash;
}

std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter, uint64_t key) {
  auto key0 = static_cast<uint32_t>(key);
  auto key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xd2511f53} * counter[0];
    const uint64_t b = uint64_t{0xcd9e8d57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(a)};
    key0 += 0x9e3779b9;
    key1 += 0xbb67ae85;
  }
  return counter;
}

// In (0, 1), 53 bits.
double Uniform(uint32_t high, uint32_t low) {
  const uint64_t bits = ((uint64_t{high} << 32) | low) >> 11;
  return (static_cast<double>(bits) + 0.5) * 0x1p-53;
}

template <typename T>
void Write(const std::vector<double>& values, Backend& backend, Tensor destination) {
  const std::vector<T> converted(values.begin(), values.end());
  backend.CopyFromHost(converted.data(), destination);
}

}  // namespace

std::array<double, 2> NormalDeviates(uint64_t seed, uint64_t name, uint64_t pair) {
  const auto words = Philox({static_cast<uint32_t>(pair), static_cast<uint32_t>(pair >> 32),
                             static_cast<uint32_t>(name), static_cast<uint32_t>(name >> 32)},
                            seed);
  const double radius = std::sqrt(-2 * std::log(Uniform(words[0], words[1])));
  const double angle = 2 * std::numbers::pi * Uniform(words[2], words[3]);
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

void InitializeParameters(const ModelConfig& config, const ParameterLayout& layout, int64_t seed,
                          Backend& backend, Tensor parameters) {
  for (const Parameter& parameter : layout.parameters()) {
    std::vector<double> values(static_cast<size_t>(parameter.count()));
    if (parameter.decays) {
      const uint64_t stream = StreamOf(parameter.name);
      for (size_t i = 0; i < values.size(); i += 2) {
        const auto pair = NormalDeviates(static_cast<uint64_t>(seed), stream, i / 2);
        values[i] = config.init_std * pair[0];
        if (i + 1 < values.size()) {
          values[i + 1] = config.init_std * pair[1];
        }
      }
    } else {
      kernels::LrpeTheta(config.heads, config.head_size(), values.data());
    }
    const Tensor destination =
        parameters.Columns(parameter.offset, parameter.count()).Reshape(1, parameter.count());
    if (parameters.dtype == DType::kFloat64) {
      Write<double>(values, backend, destination);
    } else {
      Write<float>(values, backend, destination);
    }
  }
}

}  // namespace lasp::worker
