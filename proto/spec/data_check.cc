#include "proto/spec/data_check.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/spec/corpus_file.h"
#include "proto/spec/vocabulary_probe.h"

namespace lasp {
namespace {

using Paths = google::protobuf::RepeatedPtrField<std::string>;

// "corpus.txt holds " or "a.txt and 3 more hold ".
std::string NameAll(const Paths& paths) {
  return paths.size() == 1 ? absl::StrCat(paths.Get(0), " holds ")
                           : absl::StrCat(paths.Get(0), " and ", paths.size() - 1, " more hold ");
}

void CheckPaths(const v1::TrainingSpec& spec, absl::string_view field, const Paths& paths,
                const std::vector<std::string>& path_roots,
                std::vector<DataViolation>* violations) {
  const size_t before = violations->size();
  int64_t tokens = 0;
  for (int i = 0; i < paths.size(); ++i) {
    const auto file =
        OpenCorpusFile(paths.Get(i), spec.data().format(), path_roots, CorpusCheck::kQuick);
    const absl::Status status =
        file.ok() ? ProbeVocabulary(*file, spec.model().vocab_size()) : file.status();
    if (!status.ok()) {
      violations->push_back(
          {status.code(), {absl::StrCat(field, "[", i, "]"), std::string(status.message())}});
      continue;
    }
    const int64_t room = std::numeric_limits<int64_t>::max() - tokens;
    tokens += std::min(room, file->token_count);
  }
  if (violations->size() == before && !paths.empty() && tokens <= spec.data().sequence_length()) {
    violations->push_back(
        {absl::StatusCode::kInvalidArgument,
         {std::string(field),
          absl::StrCat(NameAll(paths), tokens, " tokens, fewer than sequence_length + 1 = ",
                       spec.data().sequence_length() + 1,
                       ": add files or choose a shorter sequence_length")}});
  }
}

}  // namespace

std::vector<DataViolation> CheckData(const v1::TrainingSpec& spec,
                                     const std::vector<std::string>& path_roots) {
  std::vector<DataViolation> violations;
  CheckPaths(spec, "spec.data.train_paths", spec.data().train_paths(), path_roots, &violations);
  CheckPaths(spec, "spec.data.eval_paths", spec.data().eval_paths(), path_roots, &violations);
  return violations;
}

}  // namespace lasp
