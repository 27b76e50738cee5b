// The number formats of exchanged weights, to fp32 and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lasp {

enum class ElementType { kFloat32, kBfloat16, kFloat16 };

// As safetensors names it: F32, BF16, F16.
const char* SafetensorsName(ElementType type);
// As a config.json's torch_dtype names it: float32, bfloat16, float16.
const char* TorchName(ElementType type);
// Nothing for others.
std::optional<ElementType> ElementTypeOf(absl::string_view safetensors_name);

int64_t BytesOf(ElementType type);

// Appends `values`, little-endian, rounded to nearest, ties to even. kFloat16 is read only.
void EncodeElements(ElementType type, absl::Span<const float> values, std::string* bytes);

// `count` elements at `bytes`.
void DecodeElements(ElementType type, const char* bytes, size_t count, float* values);

}  // namespace lasp
