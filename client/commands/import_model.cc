// A job that begins with the weights of a folder: its model is what the folder holds.
#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/commands/commands.h"
#include "client/error_report.h"
#include "client/job_submission.h"
#include "proto/interchange/initial_weights.h"
#include "proto/interchange/model_files.h"
#include "proto/interchange/model_folder.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::ModelSpec;

// Whether the user says the field, in the file or with --set.
bool Says(const JobFile& file, const SubmitOptions& options, const std::string& field) {
  const std::string path = absl::StrCat("spec.model.", field);
  return file.lines.contains(path) ||
         std::any_of(options.settings.begin(), options.settings.end(),
                     [&path](const std::string& setting) {
                       return absl::StartsWith(setting, absl::StrCat(path, "=")) ||
                              absl::StartsWith(setting, "spec.model=");
                     });
}

// What the job leaves out is as the folder has it; what it says must be so.
absl::Status TakeModel(const ModelSpec& held, const SubmitOptions& options, JobFile* file) {
  ModelSpec& model = *file->job.mutable_spec()->mutable_model();
  const auto says = [&](const char* field) { return Says(*file, options, field); };
  if (!says("layers")) {
    model.set_layers(held.layers());
  }
  if (!says("hidden_size")) {
    model.set_hidden_size(held.hidden_size());
  }
  if (!says("heads")) {
    model.set_heads(held.heads());
  }
  if (!says("glu_size")) {
    model.set_glu_size(held.glu_size());
  }
  if (!says("vocab_size")) {
    model.set_vocab_size(held.vocab_size());
  }
  if (!says("tie_embeddings")) {
    model.set_tie_embeddings(held.tie_embeddings());
  }
  if (!says("architecture")) {
    model.set_architecture(held.architecture());
  }
  if (!says("lrpe_theta")) {
    model.set_lrpe_theta(held.lrpe_theta());
  }
  std::vector<FieldViolation> differences = ModelDifferences(model, held);
  for (FieldViolation& difference : differences) {
    absl::StrAppend(&difference.description, ": leave it out, or mend it");
  }
  return differences.empty() ? absl::OkStatus()
                             : PointIntoFile(InvalidFields(differences, "INVALID_SPEC"), *file);
}

}  // namespace

absl::StatusOr<int> ImportModel(const SubmitOptions& options, const Words& words,
                                Session* session) {
  if (words.size() != 1) {
    return absl::InvalidArgumentError("expected DIR: the folder that holds the model");
  }
  if (options.file.empty()) {
    return WithHint(absl::InvalidArgumentError("which job? give its file with -f"),
                    "lasp checkpoints import DIR -f job.yaml");
  }
  const absl::StatusOr<ModelFolder> folder = ModelFolder::Open(FilesOfFolder(words[0]));
  if (!folder.ok()) {
    // A folder that is not there is a wrong command line.
    return absl::InvalidArgumentError(folder.status().message());
  }
  LASP_ASSIGN_OR_RETURN(JobFile file, ReadJob(options));
  LASP_RETURN_IF_ERROR(TakeModel(folder->model(), options, &file));
  auto& weights = *file.job.mutable_spec()->mutable_model()->mutable_initial_weights();
  if (weights.path().empty()) {
    std::error_code error;
    weights.set_path(std::filesystem::absolute(words[0], error).lexically_normal().string());
    if (error) {
      return absl::InvalidArgumentError(absl::StrCat(words[0], ": ", error.message()));
    }
  }
  return SubmitJob(options, file, session);
}

}  // namespace lasp::client
