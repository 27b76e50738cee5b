// config.json: what Hugging Face's folder of a TransNormerLLM says of its shape, and what ours of a
// Linear Transformer, which Hugging Face does not know, says in the same keys.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lasp/v1/training_spec.pb.h"
#include "proto/interchange/element_type.h"

namespace lasp {

inline constexpr char kModelConfigFile[] = "config.json";

// `model` has its defaults written out.
std::string ModelConfigText(const lasp::v1::ModelSpec& model, ElementType type);

// The model, with its defaults written out and valid; initial_weights is not of it.
// INVALID_ARGUMENT names the key that is missing, wrong, or asks for another architecture than
// ours. Keys that Hugging Face's class has a default for may be missing; unknown ones say nothing.
absl::StatusOr<lasp::v1::ModelSpec> ParseModelConfig(absl::string_view text);

// The key that says a field of ModelSpec: "decoder_layers" for "layers". Empty for none.
absl::string_view ModelConfigKey(absl::string_view field);

}  // namespace lasp
