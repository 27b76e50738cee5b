#include "kernels/sinusoidal_positions.h"

#include <cmath>
#include <vector>

#include "kernels/cpu/parallel.h"

namespace lasp::kernels::cpu {
namespace {

// Positions within a block are reached from its start by turning one position at a time: no sine a
// token, and errors that do not grow with the length.
constexpr int64_t kBlock = 64;

// The sines and cosines of all frequencies at one position after another.
class Wheel {
 public:
  explicit Wheel(int64_t width)
      : frequencies_(Sized(width)),
        sine_(Sized(width)),
        cosine_(Sized(width)),
        step_sine_(Sized(width)),
        step_cosine_(Sized(width)) {
    for (size_t i = 0; i < frequencies_.size(); ++i) {
      frequencies_[i] =
          std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(width));
      step_sine_[i] = std::sin(frequencies_[i]);
      step_cosine_[i] = std::cos(frequencies_[i]);
    }
  }

  void TurnTo(int64_t position) {
    const int64_t start = position / kBlock * kBlock;
    for (size_t i = 0; i < frequencies_.size(); ++i) {
      const double angle = frequencies_[i] * static_cast<double>(start);
      sine_[i] = std::sin(angle);
      cosine_[i] = std::cos(angle);
    }
    for (position_ = start; position_ < position;) {
      Turn();
    }
  }

  void Advance() {
    if ((position_ + 1) % kBlock == 0) {
      TurnTo(position_ + 1);
    } else {
      Turn();
    }
  }

  template <typename T>
  void AddTo(int64_t width, T* x) const {
    for (int64_t c = 0; c < width; ++c) {
      const auto i = static_cast<size_t>(c / 2);
      x[c] += static_cast<T>(c % 2 == 0 ? sine_[i] : cosine_[i]);
    }
  }

 private:
  static std::vector<double> Sized(int64_t width) {
    return std::vector<double>(static_cast<size_t>((width + 1) / 2));
  }

  void Turn() {
    for (size_t i = 0; i < sine_.size(); ++i) {
      const double sine = sine_[i];
      sine_[i] = sine * step_cosine_[i] + cosine_[i] * step_sine_[i];
      cosine_[i] = cosine_[i] * step_cosine_[i] - sine * step_sine_[i];
    }
    ++position_;
  }

  std::vector<double> frequencies_;
  std::vector<double> sine_;
  std::vector<double> cosine_;
  std::vector<double> step_sine_;
  std::vector<double> step_cosine_;
  int64_t position_ = 0;
};

}  // namespace

template <typename T>
void AddSinusoidalPositions(const SinusoidalPositionsArgs<T>& args) {
  ParallelRanges(args.tokens, 4 * args.sequences * args.width, [&](int64_t begin, int64_t end) {
    Wheel wheel(args.width);
    wheel.TurnTo(args.first_position + begin);
    for (int64_t token = begin; token < end; ++token) {
      for (int64_t sequence = 0; sequence < args.sequences; ++sequence) {
        wheel.AddTo(args.width, args.x + (sequence * args.tokens + token) * args.width);
      }
      wheel.Advance();
    }
  });
}

template void AddSinusoidalPositions<float>(const SinusoidalPositionsArgs<float>&);
template void AddSinusoidalPositions<double>(const SinusoidalPositionsArgs<double>&);

}  // namespace lasp::kernels::cpu
