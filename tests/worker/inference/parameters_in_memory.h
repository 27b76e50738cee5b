// Parameters of a test's own, read as those of a folder are.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "proto/interchange/model_tensors.h"
#include "worker/inference/recurrent_model.h"
#include "worker/model/parameter_layout.h"

namespace lasp::worker {

// Normal numbers that fp32 holds.
inline std::vector<double> RandomParameters(const ParameterLayout& layout, double deviation) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, static_cast<float>(deviation));
  std::vector<double> parameters(static_cast<size_t>(layout.count()));
  std::generate(parameters.begin(), parameters.end(), [&] { return normal(random); });
  return parameters;
}

// Both must outlive the result.
inline WeightReader ReaderOf(const ParameterLayout& layout, const std::vector<double>& parameters) {
  return
      [&layout, &parameters](const std::string& tensor, int64_t begin, int64_t count, float* to) {
        for (const Parameter& parameter : layout.parameters()) {
          if (parameter.name == tensor && begin + count <= parameter.count()) {
            const auto first = parameters.begin() + parameter.offset + begin;
            std::transform(first, first + count, to,
                           [](double value) { return static_cast<float>(value); });
            return absl::OkStatus();
          }
        }
        return absl::NotFoundError(tensor);
      };
}

}  // namespace lasp::worker
