// A folder whose one file of weights somebody else made, beside an honest config.json: what is
// taken can be read to its last element.
#include "proto/interchange/model_folder.h"

#include "proto/interchange/model_config_file.h"
#include "proto/interchange/model_index.h"
#include "proto/interchange/model_tensors.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/temp_directory.h"

namespace lasp {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const folder = new testing::TempDirectory;
  static const bool written = [] {
    lasp::v1::ModelSpec model;
    model.set_architecture(lasp::v1::ModelSpec::ARCHITECTURE_TRANSNORMER);
    model.set_layers(1);
    model.set_hidden_size(2);
    model.set_heads(1);
    model.set_glu_size(1);
    model.set_vocab_size(2);
    model.set_tie_embeddings(true);
    model.set_lrpe_theta(lasp::v1::ModelSpec::LRPE_THETA_FIXED);
    model.set_init_std(0.02);
    folder->Write(kModelConfigFile, ModelConfigText(model, ElementType::kFloat32));
    return true;
  }();
  fuzz::Require(written, "config.json");
  folder->Write(kModelFile, std::string(fuzz::ToText(data, size)));
  const auto opened = ModelFolder::Open(FilesOfFolder(folder->path()));
  if (!opened.ok()) {
    return 0;
  }
  fuzz::Require(opened->size_bytes() <= static_cast<int64_t>(size), "no more than the file has");
  for (const ModelTensor& tensor : ModelTensors(opened->model())) {
    std::vector<float> values(static_cast<size_t>(tensor.count()));
    fuzz::Require(opened->Read(tensor.name, 0, tensor.count(), values.data()).ok(),
                  "every element is there");
  }
  (void)opened->CheckFixedTheta();
  return 0;
}

}  // namespace lasp
