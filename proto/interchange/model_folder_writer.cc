#include "proto/interchange/model_folder_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/checkpoint/safetensors_header.h"
#include "proto/interchange/model_config_file.h"
#include "proto/interchange/model_index.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/status_macros.h"

namespace lasp {
namespace {

constexpr int kFolderFlags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

}  // namespace

absl::Status ModelFolderWriter::CheckFree(const std::string& folder) {
  std::error_code error;
  if (!std::filesystem::exists(std::filesystem::symlink_status(folder, error))) {
    return absl::OkStatus();
  }
  if (!std::filesystem::is_directory(folder, error)) {
    return absl::AlreadyExistsError(absl::StrCat(folder, " is there and no folder: name another"));
  }
  return std::filesystem::is_empty(folder, error)
             ? absl::OkStatus()
             : absl::AlreadyExistsError(
                   absl::StrCat(folder, " is there and not empty: name another folder"));
}

absl::StatusOr<std::unique_ptr<ModelFolderWriter>> ModelFolderWriter::Create(Options options) {
  while (options.folder.size() > 1 && options.folder.back() == '/') {
    options.folder.pop_back();
  }
  LASP_RETURN_IF_ERROR(CheckFree(options.folder));
  if (const auto wrong = ModelViolations(options.model); !wrong.empty()) {
    return InvalidFields(wrong);
  }
  std::string partial = absl::StrCat(options.folder, ".partial-", NewIdSuffix(8));
  if (mkdir(partial.c_str(), 0777) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("making ", partial));
  }
  UniqueFd descriptor(open(partial.c_str(), kFolderFlags));
  if (!descriptor.valid()) {
    absl::Status status = absl::ErrnoToStatus(errno, absl::StrCat("opening ", partial));
    (void)rmdir(partial.c_str());
    return status;
  }
  return std::unique_ptr<ModelFolderWriter>(
      new ModelFolderWriter(std::move(options), std::move(partial), std::move(descriptor)));
}

ModelFolderWriter::ModelFolderWriter(Options options, std::string partial, UniqueFd partial_fd)
    : options_(std::move(options)),
      partial_(std::move(partial)),
      partial_fd_(std::move(partial_fd)),
      tensors_(ModelTensors(options_.model)) {
  PlanFiles();
}

ModelFolderWriter::~ModelFolderWriter() {
  if (finished_) {
    return;
  }
  for (const std::string& name : written_) {
    (void)unlinkat(partial_fd_.get(), name.c_str(), 0);
  }
  (void)rmdir(partial_.c_str());
}

ElementType ModelFolderWriter::TypeOf(const ModelTensor& tensor) const {
  return tensor.name == kThetaTensor ? ElementType::kFloat32 : options_.type;
}

void ModelFolderWriter::PlanFiles() {
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const int64_t more = tensors_[i].count() * BytesOf(TypeOf(tensors_[i]));
    if (files_.empty() || bytes + more > options_.max_file_bytes) {
      files_.push_back({.name = {}, .first = i, .end = i});
      bytes = 0;
    }
    bytes += more;
    files_.back().end = i + 1;
  }
  const auto count = static_cast<int>(files_.size());
  for (int i = 0; i < count; ++i) {
    files_[static_cast<size_t>(i)].name = count == 1 ? kModelFile : ModelShardName(i + 1, count);
  }
}

std::string ModelFolderWriter::HeaderOf(const File& file) const {
  SafetensorsHeader header;
  // Hugging Face's loader asks for it.
  header.metadata["format"] = "pt";
  header.tensors.reserve(file.end - file.first);
  int64_t offset = 0;
  for (size_t i = file.first; i < file.end; ++i) {
    const ElementType type = TypeOf(tensors_[i]);
    const int64_t end = offset + tensors_[i].count() * BytesOf(type);
    header.tensors.push_back({.name = tensors_[i].name,
                              .dtype = SafetensorsName(type),
                              .shape = tensors_[i].shape,
                              .begin = offset,
                              .end = end});
    offset = end;
  }
  return PrintSafetensorsHeader(header);
}

absl::Status ModelFolderWriter::Write(absl::string_view data) {
  while (!data.empty()) {
    const ssize_t count = write(file_.get(), data.data(), data.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("writing ", partial_, "/", file_name_));
    }
    data.remove_prefix(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

absl::Status ModelFolderWriter::EndFile() {
  if (file_.valid() && fdatasync(file_.get()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("syncing ", partial_, "/", file_name_));
  }
  file_ = UniqueFd();
  return absl::OkStatus();
}

absl::Status ModelFolderWriter::WriteText(const std::string& name, const std::string& text) {
  LASP_RETURN_IF_ERROR(EndFile());
  file_name_ = name;
  file_ = UniqueFd(openat(partial_fd_.get(), name.c_str(),
                          O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (!file_.valid()) {
    return absl::ErrnoToStatus(errno, absl::StrCat("making ", partial_, "/", name));
  }
  written_.push_back(name);
  return Write(text);
}

absl::Status ModelFolderWriter::OpenFileOf(size_t tensor) {
  if (next_file_ < files_.size() && files_[next_file_].first == tensor) {
    const File& file = files_[next_file_++];
    return WriteText(file.name, HeaderOf(file));
  }
  return absl::OkStatus();
}

absl::Status ModelFolderWriter::AddToTensor(absl::Span<const float> values) {
  if (element_ == 0) {
    LASP_RETURN_IF_ERROR(OpenFileOf(tensor_));
  }
  buffer_.clear();
  EncodeElements(TypeOf(tensors_[tensor_]), values, &buffer_);
  LASP_RETURN_IF_ERROR(Write(buffer_));
  written_bytes_ += static_cast<int64_t>(buffer_.size());
  element_ += static_cast<int64_t>(values.size());
  if (element_ == tensors_[tensor_].count()) {
    ++tensor_;
    element_ = 0;
  }
  return absl::OkStatus();
}

absl::Status ModelFolderWriter::SkipFixedTheta(absl::string_view next) {
  if (tensor_ < tensors_.size() && tensors_[tensor_].name == kThetaTensor && element_ == 0 &&
      next != kThetaTensor &&
      options_.model.lrpe_theta() != lasp::v1::ModelSpec::LRPE_THETA_LEARNED) {
    return AddToTensor(FixedTheta(options_.model));
  }
  return absl::OkStatus();
}

absl::Status ModelFolderWriter::Add(absl::string_view tensor, int64_t begin,
                                    absl::Span<const float> values) {
  LASP_RETURN_IF_ERROR(SkipFixedTheta(tensor));
  if (tensor_ == tensors_.size() || tensor != tensors_[tensor_].name || begin != element_ ||
      static_cast<int64_t>(values.size()) > tensors_[tensor_].count() - element_) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", values.size(), " elements from ", begin, " on of ", tensor,
                     tensor_ == tensors_.size()
                         ? " behind the last tensor"
                         : absl::StrCat(" where element ", element_, " of ", tensors_[tensor_].name,
                                        " is due, of ", tensors_[tensor_].count())));
  }
  return AddToTensor(values);
}

absl::Status ModelFolderWriter::Finish() {
  if (tensor_ != tensors_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the weights end before element ", element_, " of ", tensors_[tensor_].name));
  }
  if (files_.size() > 1) {
    ModelIndex index;
    for (const File& file : files_) {
      for (size_t i = file.first; i < file.end; ++i) {
        index.total_size += tensors_[i].count() * BytesOf(TypeOf(tensors_[i]));
        index.files[tensors_[i].name] = file.name;
      }
    }
    LASP_RETURN_IF_ERROR(WriteText(kModelIndexFile, ModelIndexText(index)));
  }
  LASP_RETURN_IF_ERROR(WriteText(kModelConfigFile, ModelConfigText(options_.model, options_.type)));
  LASP_RETURN_IF_ERROR(EndFile());
  if (fsync(partial_fd_.get()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("syncing ", partial_));
  }
  // Over nothing, or over an empty folder; never over anything else.
  if (rename(partial_.c_str(), options_.folder.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("naming ", options_.folder));
  }
  finished_ = true;
  const std::string parent = std::filesystem::path(options_.folder).parent_path().string();
  const UniqueFd parent_fd(open(parent.empty() ? "." : parent.c_str(), kFolderFlags));
  if (!parent_fd.valid() || fsync(parent_fd.get()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("syncing the folder of ", options_.folder));
  }
  return absl::OkStatus();
}

}  // namespace lasp
