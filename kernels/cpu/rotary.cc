#include "kernels/cpu/rotary.h"

#include <cmath>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/tile.h"

namespace lasp::kernels::cpu {

Turn Turn::None(int64_t key_size) {
  const auto size = static_cast<size_t>(key_size);
  return {std::vector<double>(size, 1.0), std::vector<double>(size, 0.0)};
}

Turn Turn::Of(const double* theta, int64_t key_size, int64_t tokens) {
  Turn turn = None(key_size);
  for (size_t c = 0; c < turn.cosine.size(); ++c) {
    const double angle = theta[c] * static_cast<double>(tokens);
    turn.cosine[c] = std::cos(angle);
    turn.sine[c] = std::sin(angle);
  }
  return turn;
}

void Turn::Advance(const Turn& next) {
  for (size_t c = 0; c < cosine.size(); ++c) {
    const double old_cosine = cosine[c];
    cosine[c] = old_cosine * next.cosine[c] - sine[c] * next.sine[c];
    sine[c] = old_cosine * next.sine[c] + sine[c] * next.cosine[c];
  }
}

Turn Turn::Reversed() const {
  Turn reversed = *this;
  for (double& value : reversed.sine) {
    value = -value;
  }
  return reversed;
}

template <typename T>
void RotaryTable(const double* theta, int64_t key_size, int64_t positions, T* cosine, T* sine) {
  const Turn step = Turn::Of(theta, key_size, 1);
  Turn turn = Turn::None(key_size);
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t c = 0; c < key_size; ++c) {
      cosine[p * key_size + c] = static_cast<T>(turn.cosine[static_cast<size_t>(c)]);
      sine[p * key_size + c] = static_cast<T>(turn.sine[static_cast<size_t>(c)]);
    }
    turn.Advance(step);
  }
}

template <typename T>
void RotateRows(int64_t rows, int64_t key_size, const T* cosine, const T* sine, const T* x,
                int64_t x_stride, T* tile) {
  const int64_t stride = TileStride<T>(2 * key_size);
  RunVectorised([&]() LASP_ALWAYS_INLINE {
    for (int64_t p = 0; p < rows; ++p) {
      const T* const in = x + p * x_stride;
      const T* const cosines = cosine + p * key_size;
      const T* const sines = sine + p * key_size;
      T* const out = tile + p * stride;
#pragma omp simd
      for (int64_t c = 0; c < key_size; ++c) {
        out[c] = in[c] * cosines[c];
        out[key_size + c] = in[c] * sines[c];
      }
    }
  });
}

template <typename T>
void UnrotateRows(int64_t rows, int64_t key_size, const T* cosine, const T* sine, const T* tile,
                  bool accumulate, T* dx, int64_t dx_stride) {
  const int64_t stride = TileStride<T>(2 * key_size);
  RunVectorised([&]() LASP_ALWAYS_INLINE {
    for (int64_t p = 0; p < rows; ++p) {
      const T* const in = tile + p * stride;
      const T* const cosines = cosine + p * key_size;
      const T* const sines = sine + p * key_size;
      T* const out = dx + p * dx_stride;
      // NOLINTNEXTLINE(bugprone-branch-clone): written in one, added in the other
      if (!accumulate) {
#pragma omp simd
        for (int64_t c = 0; c < key_size; ++c) {
          out[c] = in[c] * cosines[c] + in[key_size + c] * sines[c];
        }
      } else {
#pragma omp simd
        for (int64_t c = 0; c < key_size; ++c) {
          out[c] += in[c] * cosines[c] + in[key_size + c] * sines[c];
        }
      }
    }
  });
}

template <typename T>
void TurnRows(int64_t rows, int64_t key_size, const Turn& turn, const T* tile, T* turned) {
  const int64_t stride = TileStride<T>(2 * key_size);
  RunVectorised([&]() LASP_ALWAYS_INLINE {
    const double* const cosine = turn.cosine.data();
    const double* const sine = turn.sine.data();
    for (int64_t p = 0; p < rows; ++p) {
      const T* const in = tile + p * stride;
      T* const out = turned + p * stride;
#pragma omp simd
      for (int64_t c = 0; c < key_size; ++c) {
        const auto a = static_cast<double>(in[c]);
        const auto b = static_cast<double>(in[key_size + c]);
        out[c] = static_cast<T>(a * cosine[c] + b * sine[c]);
        out[key_size + c] = static_cast<T>(b * cosine[c] - a * sine[c]);
      }
    }
  });
}

template <typename T>
void DecayState(int64_t rows, int64_t width, double decay, const T* in, int64_t in_stride,
                const T* addend, T* out, int64_t out_stride) {
  RunVectorised([&]() LASP_ALWAYS_INLINE {
    for (int64_t r = 0; r < rows; ++r) {
      const T* const from = in + r * in_stride;
      const T* const more = addend == nullptr ? from : addend + r * out_stride;
      const double share = addend == nullptr ? 0.0 : 1.0;
      T* const to = out + r * out_stride;
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) {
        to[c] = static_cast<T>(decay * static_cast<double>(from[c]) +
                               share * static_cast<double>(more[c]));
      }
    }
  });
}

template <typename T>
void TurnState(int64_t key_size, int64_t width, const Turn& turn, double decay, const T* in,
               int64_t in_stride, const T* addend, T* out, int64_t out_stride) {
  RunVectorised([&]() LASP_ALWAYS_INLINE {
    for (int64_t r = 0; r < key_size; ++r) {
      const double cosine = turn.cosine[static_cast<size_t>(r)];
      const double sine = turn.sine[static_cast<size_t>(r)];
      const T* const in_a = in + r * in_stride;
      const T* const in_b = in + (key_size + r) * in_stride;
      const T* const more_a = addend == nullptr ? in_a : addend + r * out_stride;
      const T* const more_b = addend == nullptr ? in_b : addend + (key_size + r) * out_stride;
      const double share = addend == nullptr ? 0.0 : 1.0;
      T* const out_a = out + r * out_stride;
      T* const out_b = out + (key_size + r) * out_stride;
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) {
        const double a =
            decay * static_cast<double>(in_a[c]) + share * static_cast<double>(more_a[c]);
        const double b =
            decay * static_cast<double>(in_b[c]) + share * static_cast<double>(more_b[c]);
        out_a[c] = static_cast<T>(a * cosine + b * sine);
        out_b[c] = static_cast<T>(b * cosine - a * sine);
      }
    }
  });
}

template <typename T>
void AddThetaRows(int64_t rows, int64_t key_size, const T* cosine, const T* sine, const T* x,
                  int64_t x_stride, const T* gradient_tile, double weight_first, double weight_step,
                  double* sum) {
  const int64_t stride = TileStride<T>(2 * key_size);
  RunVectorised([&]() LASP_ALWAYS_INLINE {
    for (int64_t p = 0; p < rows; ++p) {
      const double weight = weight_first + weight_step * static_cast<double>(p);
      const T* const in = x + p * x_stride;
      const T* const cosines = cosine + p * key_size;
      const T* const sines = sine + p * key_size;
      const T* const gradient = gradient_tile + p * stride;
#pragma omp simd
      for (int64_t c = 0; c < key_size; ++c) {
        const T slope = cosines[c] * gradient[key_size + c] - sines[c] * gradient[c];
        sum[c] += weight * static_cast<double>(in[c] * slope);
      }
    }
  });
}

template <typename T>
void AddThetaStates(int64_t key_size, int64_t width, double weight, const T* a, int64_t a_stride,
                    const T* b, int64_t b_stride, double* sum) {
  RunVectorised([&]() LASP_ALWAYS_INLINE {
    for (int64_t r = 0; r < key_size; ++r) {
      const T* const a_first = a + r * a_stride;
      const T* const a_second = a + (key_size + r) * a_stride;
      const T* const b_first = b + r * b_stride;
      const T* const b_second = b + (key_size + r) * b_stride;
      double total = 0;
#pragma omp simd reduction(+ : total)
      for (int64_t c = 0; c < width; ++c) {
        total += static_cast<double>(a_first[c]) * static_cast<double>(b_second[c]) -
                 static_cast<double>(a_second[c]) * static_cast<double>(b_first[c]);
      }
      sum[r] += weight * total;
    }
  });
}

#define LASP_INSTANTIATE(T)                                                                        \
  template void RotaryTable<T>(const double*, int64_t, int64_t, T*, T*);                           \
  template void RotateRows<T>(int64_t, int64_t, const T*, const T*, const T*, int64_t, T*);        \
  template void UnrotateRows<T>(int64_t, int64_t, const T*, const T*, const T*, bool, T*,          \
                                int64_t);                                                          \
  template void TurnRows<T>(int64_t, int64_t, const Turn&, const T*, T*);                          \
  template void DecayState<T>(int64_t, int64_t, double, const T*, int64_t, const T*, T*, int64_t); \
  template void TurnState<T>(int64_t, int64_t, const Turn&, double, const T*, int64_t, const T*,   \
                             T*, int64_t);                                                         \
  template void AddThetaRows<T>(int64_t, int64_t, const T*, const T*, const T*, int64_t, const T*, \
                                double, double, double*);                                          \
  template void AddThetaStates<T>(int64_t, int64_t, double, const T*, int64_t, const T*, int64_t,  \
                                  double*);
LASP_INSTANTIATE(float)
LASP_INSTANTIATE(double)
#undef LASP_INSTANTIATE

}  // namespace lasp::kernels::cpu
