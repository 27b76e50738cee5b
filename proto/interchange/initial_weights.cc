#include "proto/interchange/initial_weights.h"

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/interchange/model_config_file.h"
#include "proto/interchange/model_files.h"
#include "proto/rpc/status_macros.h"

namespace lasp {
namespace {

using lasp::v1::ModelSpec;

constexpr char kField[] = "spec.model.initial_weights.path";

}  // namespace

std::vector<FieldViolation> ModelDifferences(const ModelSpec& asked, const ModelSpec& held) {
  std::vector<FieldViolation> differences;
  const auto compare = [&differences](const char* field, int64_t ours, int64_t theirs) {
    if (ours != theirs) {
      differences.push_back({absl::StrCat("spec.model.", field),
                             absl::StrCat("is ", ours, ", but ", ModelConfigKey(field), " of ",
                                          kModelConfigFile, " is ", theirs)});
    }
  };
  if (asked.architecture() != held.architecture()) {
    differences.push_back(
        {"spec.model.architecture",
         absl::StrCat("is ", ModelSpec::Architecture_Name(asked.architecture()), ", but the ",
                      ModelConfigKey("architecture"), " of ", kModelConfigFile, " is that of ",
                      ModelSpec::Architecture_Name(held.architecture()))});
  }
  compare("layers", asked.layers(), held.layers());
  compare("hidden_size", asked.hidden_size(), held.hidden_size());
  compare("heads", asked.heads(), held.heads());
  compare("glu_size", asked.glu_size(), held.glu_size());
  compare("vocab_size", asked.vocab_size(), held.vocab_size());
  if (asked.tie_embeddings() != held.tie_embeddings()) {
    differences.push_back({"spec.model.tie_embeddings",
                           absl::StrCat("is ", asked.tie_embeddings() ? "true" : "false", ", but ",
                                        ModelConfigKey("tie_embeddings"), " of ", kModelConfigFile,
                                        " is ", held.tie_embeddings() ? "true" : "false")});
  }
  return differences;
}

absl::StatusOr<ModelFolder> OpenInitialWeights(const ModelSpec& model,
                                               const std::vector<std::string>& path_roots) {
  LASP_ASSIGN_OR_RETURN(ModelFolder folder, ModelFolder::Open(FilesBeneathRoots(
                                                model.initial_weights().path(), path_roots)));
  const std::vector<FieldViolation> differences = ModelDifferences(model, folder.model());
  if (!differences.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        model.initial_weights().path(), " holds another model: ",
        absl::StrJoin(differences, "; ", [](std::string* out, const FieldViolation& difference) {
          absl::StrAppend(out, difference.field, " ", difference.description);
        })));
  }
  if (model.lrpe_theta() != ModelSpec::LRPE_THETA_LEARNED) {
    LASP_RETURN_IF_ERROR(folder.CheckFixedTheta());
  }
  return folder;
}

absl::Status CheckInitialWeights(const lasp::v1::TrainingSpec& spec,
                                 const std::vector<std::string>& path_roots) {
  if (!spec.model().has_initial_weights()) {
    return absl::OkStatus();
  }
  const absl::Status opened = OpenInitialWeights(spec.model(), path_roots).status();
  if (opened.ok()) {
    return absl::OkStatus();
  }
  const absl::Status error =
      InvalidFields({{kField, std::string(opened.message())}}, "INVALID_DATA");
  absl::Status status(opened.code(), error.message());
  error.ForEachPayload([&status](absl::string_view type_url, const absl::Cord& payload) {
    status.SetPayload(type_url, payload);
  });
  return status;
}

}  // namespace lasp
