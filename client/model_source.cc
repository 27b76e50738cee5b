#include "client/model_source.h"

#include <stdlib.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/checkpoint_download.h"
#include "client/checkpoint_reference.h"
#include "client/error_report.h"
#include "client/job_reference.h"
#include "client/own_disk.h"
#include "proto/interchange/model_files.h"
#include "proto/interchange/model_folder.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

struct CheckpointWords {
  std::vector<std::string> job;
  std::string step;  // empty: the newest
};

// Ids begin with a letter, so a number is none.
bool IsStep(const std::string& word) {
  int64_t step = 0;
  return word == "latest" || absl::SimpleAtoi(word, &step);
}

// Of NAME, NAME/STEP or NAME STEP.
CheckpointWords SplitStep(const std::vector<std::string>& words) {
  CheckpointWords split{.job = words, .step = {}};
  std::string& last = split.job.back();
  const size_t slash = last.rfind('/');
  if (slash != std::string::npos && IsStep(last.substr(slash + 1))) {
    split.step = last.substr(slash + 1);
    last.resize(slash);
  } else if (words.size() > 1 && IsStep(last)) {
    split.step = last;
    split.job.pop_back();
  }
  return split;
}

absl::StatusOr<std::string> AbsoluteFolder(const std::string& path) {
  std::error_code error;
  std::string folder = std::filesystem::absolute(path, error).lexically_normal().string();
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.message()));
  }
  return folder;
}

absl::StatusOr<std::string> MakeTemporaryFolder() {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::temp_directory_path(error);
  std::string folder = (parent / "lasp-model-XXXXXX").string();
  if (!error && mkdtemp(folder.data()) != nullptr) {
    return folder;
  }
  const char* const named = std::getenv("TMPDIR");  // NOLINT(concurrency-mt-unsafe)
  return WithHint(OwnDiskError(absl::ErrnoToStatus(
                      error ? error.value() : errno,
                      absl::StrCat("making a temporary folder in ",
                                   error ? (named == nullptr ? "/tmp" : named) : parent.string()))),
                  "a folder to keep is named with --keep, one for what is temporary with TMPDIR");
}

absl::StatusOr<lasp::v1::ModelSpec> ReadModel(const std::string& folder) {
  const absl::StatusOr<ModelFolder> opened = ModelFolder::Open(FilesOfFolder(folder));
  if (!opened.ok()) {
    // A folder that is not there is a wrong command line.
    return absl::InvalidArgumentError(
        absl::StrCat(folder, ": ", absl::string_view(opened.status().message())));
  }
  return opened->model();
}

}  // namespace

absl::StatusOr<ModelSource> ModelSource::Open(const ModelOptions& options,
                                              const std::vector<std::string>& words,
                                              Session* session) {
  ModelSource source;
  if (options.folder.empty() == words.empty()) {
    return WithHint(absl::InvalidArgumentError("which model? name a job, or a folder with --model"),
                    "lasp checkpoints list NAME shows a job's checkpoints");
  }
  if (!options.folder.empty()) {
    if (!options.keep.empty()) {
      return absl::InvalidArgumentError("--keep is for a job's checkpoint, not for --model");
    }
    LASP_ASSIGN_OR_RETURN(source.folder_, AbsoluteFolder(options.folder));
    LASP_ASSIGN_OR_RETURN(source.model_, ReadModel(source.folder_));
    source.name_ = source.folder_;
    return source;
  }
  const auto [job_words, step] = SplitStep(words);
  LASP_ASSIGN_OR_RETURN(const std::string name, JobArgument(job_words));
  LASP_ASSIGN_OR_RETURN(const lasp::v1::TrainingJob job, ResolveJob(name, session));
  source.data_ = job.spec().data();
  LASP_ASSIGN_OR_RETURN(const lasp::v1::Checkpoint checkpoint,
                        TheCheckpoint(step.empty() ? std::vector<std::string>{job.name()}
                                                   : std::vector<std::string>{job.name(), step},
                                      session));
  source.name_ = checkpoint.name();
  if (options.keep.empty()) {
    source.interrupt_ = std::make_unique<InterruptScope>([] {});
    LASP_ASSIGN_OR_RETURN(source.temporary_, MakeTemporaryFolder());
    source.folder_ = source.temporary_ + "/model";
  } else {
    LASP_ASSIGN_OR_RETURN(source.folder_, AbsoluteFolder(options.keep));
  }
  LASP_RETURN_IF_ERROR(DownloadCheckpoint(checkpoint, source.folder_, FolderReader::kOwnPrograms,
                                          ElementType::kFloat32, ExportOptions().max_file_bytes,
                                          session)
                           .status());
  LASP_ASSIGN_OR_RETURN(source.model_, ReadModel(source.folder_));
  return source;
}

ModelSource::~ModelSource() { Discard(); }

void ModelSource::Discard() {
  if (!temporary_.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(std::exchange(temporary_, {}), ignored);
  }
  interrupt_ = nullptr;
}

ModelSource::ModelSource(ModelSource&& other) noexcept
    : interrupt_(std::move(other.interrupt_)),
      temporary_(std::exchange(other.temporary_, {})),
      folder_(std::move(other.folder_)),
      model_(std::move(other.model_)),
      data_(std::move(other.data_)),
      name_(std::move(other.name_)) {}

}  // namespace lasp::client
