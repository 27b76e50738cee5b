// A config.json that somebody else made: what is taken is a valid model, and says the same when it
// is written.
#include "proto/interchange/model_config_file.h"
#include "proto/interchange/model_tensors.h"
#include "tests/fuzz/fuzz_target.h"

namespace lasp {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto model = ParseModelConfig(fuzz::ToText(data, size));
  if (!model.ok()) {
    return 0;
  }
  fuzz::Require(ModelViolations(*model).empty(), "a model that a job may have");
  fuzz::Require(!ModelTensors(*model).empty(), "with tensors");
  const auto again = ParseModelConfig(ModelConfigText(*model, ElementType::kFloat32));
  fuzz::Require(again.ok(), "what is written is read");
  fuzz::Require(again->SerializeAsString() == model->SerializeAsString(), "and is the same");
  return 0;
}

}  // namespace lasp
