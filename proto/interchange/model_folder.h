// A folder in Hugging Face's TransNormerLLM layout, or another model's in one alike: config.json,
// and safetensors in one file or in several with an index. Made by anybody: nothing in it is
// believed before it is checked.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lasp/v1/training_spec.pb.h"
#include "proto/interchange/element_type.h"
#include "proto/interchange/model_files.h"

namespace lasp {

class ModelFolder {
 public:
  // Reads config.json, the index and every file's head, and none of the weights. INVALID_ARGUMENT
  // unless the files hold each tensor of the model once, of its shape, as F32, BF16 or F16, and
  // nothing else; NOT_FOUND and the like for files that cannot be opened.
  static absl::StatusOr<ModelFolder> Open(const ModelFileOpener& files);

  const lasp::v1::ModelSpec& model() const { return model_; }

  // Bytes of all weights.
  int64_t size_bytes() const { return size_bytes_; }

  // Elements [begin, begin + count) of a tensor of ModelTensors, in row-major order. DATA_LOSS
  // where a file is not what it was.
  absl::Status Read(const std::string& tensor, int64_t begin, int64_t count, float* to) const;

  // FAILED_PRECONDITION where the model has frequencies, and they are not the fixed ones.
  absl::Status CheckFixedTheta() const;

 private:
  struct Place {
    size_t file = 0;
    ElementType type = ElementType::kFloat32;
    int64_t offset_bytes = 0;
    int64_t count = 0;
  };

  // Adds the tensors of one file, which must be `expected`; all that it has where that is empty.
  absl::Status AddFile(const ModelFileOpener& files, const std::string& name,
                       const std::set<std::string>& expected);

  lasp::v1::ModelSpec model_;
  int64_t size_bytes_ = 0;
  std::vector<OpenedFile> files_;
  std::map<std::string, Place> places_;
};

}  // namespace lasp
