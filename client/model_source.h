// The folder of a model that a command computes with.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/interrupt.h"
#include "client/model_options.h"
#include "client/session.h"
#include "lasp/v1/checkpoint.pb.h"
#include "lasp/v1/training_spec.pb.h"

namespace lasp::client {

// A folder with a model in it. A temporary one is removed with the object: until then Ctrl-C does
// not end the program at once.
class ModelSource {
 public:
  // The folder that the options name, or the checkpoint that `words` do (NAME/STEP, or NAME STEP),
  // exported. INVALID_ARGUMENT for both, for neither, for a folder without a whole model, and where
  // no temporary one can be made; errors of TheCheckpoint and DownloadCheckpoint.
  static absl::StatusOr<ModelSource> Open(const ModelOptions& options,
                                          const std::vector<std::string>& words, Session* session);
  ~ModelSource();
  ModelSource(ModelSource&& other) noexcept;
  ModelSource& operator=(ModelSource&&) = delete;

  // Removes a temporary folder, once it has been read: from then on not even kill -9 leaves it, and
  // whoever goes on has an InterruptScope of its own.
  void Discard();

  // Absolute.
  const std::string& folder() const { return folder_; }

  const lasp::v1::ModelSpec& model() const { return model_; }

  // Of the checkpoint's job; null where a folder was named.
  const lasp::v1::DataSpec* data() const { return data_.has_value() ? &*data_ : nullptr; }

  // The checkpoint's resource name, or the folder.
  const std::string& name() const { return name_; }

 private:
  ModelSource() = default;

  std::unique_ptr<InterruptScope> interrupt_;  // as long as there is something to remove
  std::string temporary_;                      // empty: nothing to remove
  std::string folder_;
  lasp::v1::ModelSpec model_;
  std::optional<lasp::v1::DataSpec> data_;
  std::string name_;
};

}  // namespace lasp::client
