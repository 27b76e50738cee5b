// fp32 values as narrower types hold them: rounded to the nearest, ties to even. No NaNs.
#pragma once

#include <cstdint>
#include <cstring>

namespace lasp::worker {

namespace rounding_internal {

template <int kDropped>
float Round(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  bits += (uint32_t{1} << (kDropped - 1)) - 1 + ((bits >> kDropped) & 1);
  bits &= ~((uint32_t{1} << kDropped) - 1);
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

}  // namespace rounding_internal

inline float RoundedToBf16(float value) { return rounding_internal::Round<16>(value); }

// Of normal halves.
inline float RoundedToHalf(float value) { return rounding_internal::Round<13>(value); }

inline float FromBf16(uint16_t bf16) {
  const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint16_t ToBf16(float value) {
  const float rounded = RoundedToBf16(value);
  uint32_t bits = 0;
  std::memcpy(&bits, &rounded, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

}  // namespace lasp::worker
