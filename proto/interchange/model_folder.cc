#include "proto/interchange/model_folder.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/checkpoint/quoted_name.h"
#include "proto/checkpoint/safetensors_header.h"
#include "proto/interchange/model_config_file.h"
#include "proto/interchange/model_index.h"
#include "proto/interchange/model_tensors.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/file_reader.h"

namespace lasp {
namespace {

// A terabyte of files of 2 GB; each stays open.
constexpr size_t kMostFiles = 512;
constexpr int64_t kMaxTextBytes = 256 << 20;
// 4 MiB of fp32 on their way.
constexpr int64_t kElementsAtATime = 1 << 20;

absl::StatusOr<int64_t> SizeOf(const OpenedFile& file) {
  struct stat status = {};
  if (fstat(file.fd.get(), &status) != 0) {
    return absl::ErrnoToStatus(errno, file.path);
  }
  return static_cast<int64_t>(status.st_size);
}

absl::StatusOr<std::string> ReadText(const OpenedFile& file) {
  LASP_ASSIGN_OR_RETURN(const int64_t size, SizeOf(file));
  if (size > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path, " has ", size, " bytes; at most ", kMaxTextBytes));
  }
  std::string text(static_cast<size_t>(size), '\0');
  LASP_RETURN_IF_ERROR(FileReader(file.fd.get(), file.path, size).ReadAt(0, size, text.data()));
  return text;
}

struct Head {
  SafetensorsHeader header;
  int64_t data_offset = 0;
};

absl::StatusOr<Head> ReadHead(const OpenedFile& file) {
  LASP_ASSIGN_OR_RETURN(const int64_t size, SizeOf(file));
  const FileReader reader(file.fd.get(), file.path, size);
  std::string text(static_cast<size_t>(std::min(size, kSafetensorsLengthBytes)), '\0');
  LASP_RETURN_IF_ERROR(reader.ReadAt(0, static_cast<int64_t>(text.size()), text.data()));
  const auto in_file = [&file](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(file.path, ": ", status.message()));
  };
  const absl::StatusOr<int64_t> offset = SafetensorsDataOffset(text, size);
  if (!offset.ok()) {
    return in_file(offset.status());
  }
  text.resize(static_cast<size_t>(*offset - kSafetensorsLengthBytes));
  LASP_RETURN_IF_ERROR(
      reader.ReadAt(kSafetensorsLengthBytes, static_cast<int64_t>(text.size()), text.data()));
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(text, size - *offset);
  if (!header.ok()) {
    return in_file(header.status());
  }
  return Head{.header = *std::move(header), .data_offset = *offset};
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace

absl::StatusOr<ModelFolder> ModelFolder::Open(const ModelFileOpener& files) {
  ModelFolder folder;
  {
    LASP_ASSIGN_OR_RETURN(const OpenedFile file, files(kModelConfigFile));
    LASP_ASSIGN_OR_RETURN(const std::string text, ReadText(file));
    LASP_ASSIGN_OR_RETURN(folder.model_, ParseModelConfig(text));
  }
  const absl::StatusOr<OpenedFile> index_file = files(kModelIndexFile);
  if (absl::IsNotFound(index_file.status())) {
    LASP_RETURN_IF_ERROR(folder.AddFile(files, kModelFile, {}));
  } else {
    LASP_RETURN_IF_ERROR(index_file.status());
    LASP_ASSIGN_OR_RETURN(const std::string text, ReadText(*index_file));
    LASP_ASSIGN_OR_RETURN(const ModelIndex index, ParseModelIndex(text));
    std::map<std::string, std::set<std::string>> tensors_of;
    for (const auto& [tensor, file] : index.files) {
      tensors_of[file].insert(tensor);
    }
    if (tensors_of.size() > kMostFiles) {
      return absl::InvalidArgumentError(absl::StrCat(kModelIndexFile, ": names ", tensors_of.size(),
                                                     " files; at most ", kMostFiles));
    }
    for (const auto& [file, tensors] : tensors_of) {
      LASP_RETURN_IF_ERROR(folder.AddFile(files, file, tensors));
    }
  }
  for (const ModelTensor& tensor : ModelTensors(folder.model_)) {
    if (!folder.places_.contains(tensor.name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("no file holds ", tensor.name, ", which ", kModelConfigFile, " asks for"));
    }
  }
  return folder;
}

absl::Status ModelFolder::AddFile(const ModelFileOpener& files, const std::string& name,
                                  const std::set<std::string>& expected) {
  LASP_ASSIGN_OR_RETURN(OpenedFile file, files(name));
  const std::string path = file.path;
  const auto wrong = [&path](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
  };
  LASP_ASSIGN_OR_RETURN(const Head head, ReadHead(file));
  std::map<std::string, ModelTensor> wanted;
  for (ModelTensor& tensor : ModelTensors(model_)) {
    wanted.emplace(tensor.name, std::move(tensor));
  }
  for (const SafetensorsEntry& entry : head.header.tensors) {
    if (!expected.empty() && !expected.contains(entry.name)) {
      return wrong(
          absl::StrCat(QuotedName(entry.name), " is not said to be here by ", kModelIndexFile));
    }
    const auto found = wanted.find(entry.name);
    if (found == wanted.end()) {
      return wrong(absl::StrCat(QuotedName(entry.name), " is no tensor of the model that ",
                                kModelConfigFile, " describes"));
    }
    if (entry.shape != found->second.shape) {
      return wrong(absl::StrCat(entry.name, " is ", ShapeText(entry.shape), "; ", kModelConfigFile,
                                " asks for ", ShapeText(found->second.shape)));
    }
    const std::optional<ElementType> type = ElementTypeOf(entry.dtype);
    if (!type.has_value()) {
      return wrong(
          absl::StrCat(entry.name, " is ", QuotedName(entry.dtype), ", not F32, BF16 or F16"));
    }
    places_[entry.name] = {.file = files_.size(),
                           .type = *type,
                           .offset_bytes = head.data_offset + entry.begin,
                           .count = found->second.count()};
    size_bytes_ += entry.end - entry.begin;
  }
  for (const std::string& tensor : expected) {
    const auto found = places_.find(tensor);
    if (found == places_.end() || found->second.file != files_.size()) {
      return wrong(absl::StrCat("does not hold ", QuotedName(tensor), ", which ", kModelIndexFile,
                                " says is here"));
    }
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status ModelFolder::Read(const std::string& tensor, int64_t begin, int64_t count,
                               float* to) const {
  const auto found = places_.find(tensor);
  if (found == places_.end() || begin < 0 || count < 0 || begin > found->second.count ||
      count > found->second.count - begin) {
    return absl::InternalError(absl::StrCat("elements ", begin, " to ", begin + count, " of ",
                                            tensor, " are not of the model"));
  }
  const Place& place = found->second;
  const OpenedFile& file = files_[place.file];
  std::vector<char> buffer;
  while (count > 0) {
    const int64_t part = std::min(count, kElementsAtATime);
    const int64_t bytes = part * BytesOf(place.type);
    buffer.resize(static_cast<size_t>(bytes));
    const int64_t offset = place.offset_bytes + begin * BytesOf(place.type);
    LASP_RETURN_IF_ERROR(
        FileReader(file.fd.get(), file.path, offset + bytes).ReadAt(offset, bytes, buffer.data()));
    DecodeElements(place.type, buffer.data(), static_cast<size_t>(part), to);
    begin += part;
    count -= part;
    to += part;
  }
  return absl::OkStatus();
}

absl::Status ModelFolder::CheckFixedTheta() const {
  if (!HasHuggingFaceLayout(model_)) {
    return absl::OkStatus();  // it has no theta
  }
  // Half a unit of bf16's last place, and a little.
  constexpr float kTolerance = 1.0F / 200;
  const std::vector<float> fixed = FixedTheta(model_);
  std::vector<float> held(fixed.size());
  LASP_RETURN_IF_ERROR(Read(kThetaTensor, 0, static_cast<int64_t>(held.size()), held.data()));
  for (size_t i = 0; i < fixed.size(); ++i) {
    if (!(std::abs(held[i] - fixed[i]) <= kTolerance * fixed[i])) {
      return absl::FailedPreconditionError(
          absl::StrCat(kThetaTensor, " is ", held[i], " at ", i, ", not the ", fixed[i],
                       " of fixed frequencies: train with model.lrpe_theta LEARNED"));
    }
  }
  return absl::OkStatus();
}

}  // namespace lasp
