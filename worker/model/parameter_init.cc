#include "worker/model/parameter_init.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <thread>
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

constexpr int64_t kPiece = int64_t{1} << 22;  // even
// Below this a thread costs more than it brings.
constexpr int64_t kThreadShare = int64_t{1} << 16;

// values[i] = deviate begin + i of the stream, times `deviation`. `begin` is even.
template <typename T>
void FillNormal(uint64_t seed, uint64_t stream, double deviation, int64_t begin,
                std::vector<T>& values) {
  const auto count = static_cast<int64_t>(values.size());
  const auto fill = [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i += 2) {
      const auto pair = NormalDeviates(seed, stream, static_cast<uint64_t>(begin + i) / 2);
      values[i] = static_cast<T>(deviation * pair[0]);
      if (i + 1 < to) {
        values[i + 1] = static_cast<T>(deviation * pair[1]);
      }
    }
  };
  const int64_t threads = std::clamp<int64_t>(
      count / kThreadShare, 1, std::max<int64_t>(1, std::thread::hardware_concurrency()));
  const int64_t share = (count / threads + 2) / 2 * 2;
  std::vector<std::thread> others;
  for (int64_t from = share; from < count; from += share) {
    others.emplace_back(fill, from, std::min(from + share, count));
  }
  fill(0, std::min(share, count));
  for (std::thread& thread : others) {
    thread.join();
  }
}

// Elements [begin, begin + destination.count()) of a parameter.
template <typename T>
void Initialize(const ModelConfig& config, const Parameter& parameter, uint64_t seed, int64_t begin,
                Backend& backend, Tensor destination) {
  if (!parameter.decays) {
    std::vector<double> theta(static_cast<size_t>(parameter.count()));
    kernels::LrpeTheta(config.heads, config.head_size(), theta.data());
    const std::vector<T> converted(theta.begin(), theta.end());
    backend.CopyFromHost(converted.data() + begin, destination);
    return;
  }
  const uint64_t stream = StreamOf(parameter.name);
  std::vector<T> values;
  for (int64_t done = 0; done < destination.count();) {
    // Deviates come in pairs, of which the first may not be wanted.
    const int64_t odd = (begin + done) % 2;
    const int64_t count = std::min(kPiece, destination.count() - done);
    values.resize(static_cast<size_t>(odd + count));
    FillNormal(seed, stream, config.init_std, begin + done - odd, values);
    backend.CopyFromHost(values.data() + odd, destination.Columns(done, count).Reshape(1, count));
    done += count;
  }
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
                          Backend& backend, const std::vector<TensorShare>& shares,
                          Tensor parameters) {
  for (const TensorShare& share : shares) {
    for (const Parameter& parameter : layout.parameters()) {
      const int64_t begin = std::max(share.begin, parameter.offset);
      const int64_t end = std::min(share.begin + share.count, parameter.offset + parameter.count());
      if (begin >= end) {
        continue;
      }
      const Tensor destination = parameters.Columns(share.local + begin - share.begin, end - begin)
                                     .Reshape(1, end - begin);
      const int64_t first = begin - parameter.offset;
      if (parameters.dtype == DType::kFloat64) {
        Initialize<double>(config, parameter, static_cast<uint64_t>(seed), first, backend,
                           destination);
      } else {
        Initialize<float>(config, parameter, static_cast<uint64_t>(seed), first, backend,
                          destination);
      }
    }
  }
}

}  // namespace lasp::worker
