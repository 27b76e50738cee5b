#include "worker/telemetry/model_flops.h"

#include <utility>

#include "absl/strings/match.h"
#include "proto/spec/softmax_support.h"

namespace lasp::worker {

double ModelFlopsPerToken(const lasp::v1::ModelSpec& model, int64_t sequence_length) {
  const auto hidden = static_cast<double>(model.hidden_size());
  const auto head = hidden / static_cast<double>(model.heads());
  const bool gated = model.architecture() != lasp::v1::ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER;
  // q, k, v, the output, and the gate where there is one. A head's state takes k vᵀ and gives
  // q·state.
  const double linear = (gated ? 5 : 4) * hidden * hidden + 2 * hidden * head;
  // q and the output, k and v of fewer heads. A token sees itself and those before it: q·k and p·v.
  const double softmax = 2 * hidden * (hidden + head * model.kv_heads()) +
                         2 * hidden * (static_cast<double>(sequence_length) + 1) / 2;
  const auto softmax_layers = static_cast<double>(SoftmaxLayers(model));
  const auto layers = static_cast<double>(model.layers());
  const double mlps = layers * 3 * hidden * static_cast<double>(model.glu_size());
  const double output = hidden * static_cast<double>(model.vocab_size());
  // A multiplication and an addition, once forward and twice backward.
  return 6 * ((layers - softmax_layers) * linear + softmax_layers * softmax + mlps + output);
}

double PeakFlopsPerSecond(absl::string_view gpu_name) {
  // The first that the name contains.
  static constexpr std::pair<const char*, double> kPeaks[] = {
      {"GH200", 989.4e12},     {"H200 NVL", 835.5e12}, {"H200", 989.4e12},
      {"H100 PCIe", 756.5e12}, {"H100 NVL", 835.5e12}, {"H100", 989.4e12}};
  for (const auto& [name, peak] : kPeaks) {
    if (absl::StrContains(gpu_name, name)) {
      return peak;
    }
  }
  return 0;
}

}  // namespace lasp::worker
