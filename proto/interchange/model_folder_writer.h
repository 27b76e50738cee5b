// Writes a folder in Hugging Face's TransNormerLLM layout, whole or not at all.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "lasp/v1/training_spec.pb.h"
#include "proto/interchange/element_type.h"
#include "proto/interchange/model_tensors.h"
#include "proto/spec/unique_fd.h"

namespace lasp {

// Not thread-safe.
class ModelFolderWriter {
 public:
  struct Options {
    // Must not exist, or be an empty folder.
    std::string folder;
    lasp::v1::ModelSpec model;  // with its defaults written out
    ElementType type = ElementType::kFloat32;
    // Beyond it weights are split over several files; a larger tensor has one of its own.
    int64_t max_file_bytes = 5'000'000'000;
  };

  // ALREADY_EXISTS where there is something under the name.
  static absl::Status CheckFree(const std::string& folder);
  // Makes `folder`.partial-… beside it. INVALID_ARGUMENT for no valid model; ALREADY_EXISTS where
  // there is something; otherwise the code of what the system says.
  static absl::StatusOr<std::unique_ptr<ModelFolderWriter>> Create(Options options);
  // Removes what was written, unless it is finished.
  ~ModelFolderWriter();
  ModelFolderWriter(const ModelFolderWriter&) = delete;
  ModelFolderWriter& operator=(const ModelFolderWriter&) = delete;

  // The next elements: tensor by tensor as ModelTensors names them, each from its first element on.
  // INVALID_ARGUMENT where others are due. Theta may be left out where it is fixed.
  absl::Status Add(absl::string_view tensor, int64_t begin, absl::Span<const float> values);

  // Once all are there: everything is on the disk for good and under its name when this returns.
  absl::Status Finish();

  int file_count() const { return static_cast<int>(files_.size()); }

  // Of the weights that were added.
  int64_t written_bytes() const { return written_bytes_; }

 private:
  struct File {
    std::string name;
    size_t first = 0;  // of tensors_
    size_t end = 0;
  };

  ModelFolderWriter(Options options, std::string partial, UniqueFd partial_fd);

  ElementType TypeOf(const ModelTensor& tensor) const;
  void PlanFiles();
  std::string HeaderOf(const File& file) const;
  // Opens the file that tensor_ begins, and ends the one before.
  absl::Status OpenFileOf(size_t tensor);
  absl::Status EndFile();
  absl::Status AddToTensor(absl::Span<const float> values);
  absl::Status SkipFixedTheta(absl::string_view next);
  absl::Status WriteText(const std::string& name, const std::string& text);
  absl::Status Write(absl::string_view data);

  const Options options_;
  const std::string partial_;
  const UniqueFd partial_fd_;
  const std::vector<ModelTensor> tensors_;
  std::vector<File> files_;
  UniqueFd file_;
  std::string file_name_;
  size_t next_file_ = 0;
  size_t tensor_ = 0;
  int64_t element_ = 0;
  int64_t written_bytes_ = 0;
  std::string buffer_;
  std::vector<std::string> written_;
  bool finished_ = false;
};

}  // namespace lasp
