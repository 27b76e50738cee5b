// What `lasp sample` and `lasp evaluate` are asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lasp/v1/training_spec.pb.h"

namespace lasp::client {

enum class ModelDevice { kAny, kCpu, kGpu };

// Which model, and where it is computed.
struct ModelOptions {
  // A folder that is there already; empty: a checkpoint's, by the words of the command line.
  std::string folder;
  // Where a checkpoint is exported to, to stay there; empty: to a temporary folder.
  std::string keep;
  ModelDevice device = ModelDevice::kAny;
  // Instead of the programs beside this one.
  std::string program;
};

struct SampleOptions {
  std::optional<std::string> prompt;
  // A path, or "-" for the standard input.
  std::string prompt_file;
  std::vector<int32_t> prompt_tokens;
  int64_t max_tokens = 256;
  double temperature = 1;
  int64_t top_k = 0;
  double top_p = 1;
  // None: one is drawn.
  std::optional<uint64_t> seed;
  int samples = 1;
};

struct EvaluateOptions {
  std::vector<std::string> files;
  // FORMAT_UNSPECIFIED and 0: the job's.
  lasp::v1::DataSpec::Format format = lasp::v1::DataSpec::FORMAT_UNSPECIFIED;
  int64_t sequence_length = 0;
  // 0: all there are.
  int64_t max_tokens = 0;
};

}  // namespace lasp::client
