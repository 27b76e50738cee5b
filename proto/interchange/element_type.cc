#include "proto/interchange/element_type.h"

#include <bit>
#include <cmath>
#include <cstring>

namespace lasp {
namespace {

static_assert(std::endian::native == std::endian::little);

uint16_t ToBfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) {
    // What remains of a NaN's digits must not be none.
    return static_cast<uint16_t>((bits >> 16) | 0x40);
  }
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float FromFloat16(uint16_t half) {
  const float sign = (half & 0x8000) != 0 ? -1.0F : 1.0F;
  const int exponent = (half >> 10) & 0x1f;
  const int digits = half & 0x3ff;
  if (exponent == 0x1f) {
    return digits == 0 ? sign * HUGE_VALF : std::nanf("");
  }
  return sign * (exponent == 0 ? std::ldexp(static_cast<float>(digits), -24)
                               : std::ldexp(static_cast<float>(digits + 0x400), exponent - 25));
}

}  // namespace

const char* SafetensorsName(ElementType type) {
  switch (type) {
    case ElementType::kBfloat16:
      return "BF16";
    case ElementType::kFloat16:
      return "F16";
    default:
      return "F32";
  }
}

const char* TorchName(ElementType type) {
  switch (type) {
    case ElementType::kBfloat16:
      return "bfloat16";
    case ElementType::kFloat16:
      return "float16";
    default:
      return "float32";
  }
}

std::optional<ElementType> ElementTypeOf(absl::string_view safetensors_name) {
  for (const ElementType type :
       {ElementType::kFloat32, ElementType::kBfloat16, ElementType::kFloat16}) {
    if (safetensors_name == SafetensorsName(type)) {
      return type;
    }
  }
  return std::nullopt;
}

int64_t BytesOf(ElementType type) { return type == ElementType::kFloat32 ? 4 : 2; }

void EncodeElements(ElementType type, absl::Span<const float> values, std::string* bytes) {
  const size_t before = bytes->size();
  bytes->resize(before + values.size() * static_cast<size_t>(BytesOf(type)));
  char* const to = bytes->data() + before;
  if (type == ElementType::kFloat32) {
    std::memcpy(to, values.data(), values.size() * sizeof(float));
    return;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t rounded = ToBfloat16(values[i]);
    std::memcpy(to + i * sizeof(rounded), &rounded, sizeof(rounded));
  }
}

void DecodeElements(ElementType type, const char* bytes, size_t count, float* values) {
  if (type == ElementType::kFloat32) {
    std::memcpy(values, bytes, count * sizeof(float));
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    uint16_t element = 0;
    std::memcpy(&element, bytes + i * sizeof(element), sizeof(element));
    values[i] = type == ElementType::kFloat16
                    ? FromFloat16(element)
                    : std::bit_cast<float>(static_cast<uint32_t>(element) << 16);
  }
}

}  // namespace lasp
