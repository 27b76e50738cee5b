#include "server/job_fields.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace lasp::server {
namespace {

// Code points, not bytes: limits are in characters. protobuf has already refused broken UTF-8.
int CountCharacters(absl::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

// Text with control characters could steer the terminal that shows it.
bool HasControlCharacter(absl::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); });
}

void CheckText(const std::string& field, const std::string& text, int limit,
               std::vector<FieldViolation>* violations) {
  const int characters = CountCharacters(text);
  if (characters > limit) {
    violations->push_back(
        {field, absl::StrCat("has ", characters, " characters: at most ", limit)});
  } else if (HasControlCharacter(text)) {
    violations->push_back({field, "holds a control character: leave it out"});
  }
}

}  // namespace

bool IsValidLabelKey(absl::string_view key) {
  if (key.empty() || key.size() > 63 || !absl::ascii_islower(static_cast<unsigned char>(key[0]))) {
    return false;
  }
  return std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_' || c == '-';
  });
}

std::vector<FieldViolation> CheckJobFields(const v1::TrainingJob& job, const LabelLimits& limits) {
  std::vector<FieldViolation> violations;
  CheckText("display_name", job.display_name(), kMaxDisplayNameCharacters, &violations);
  const v1::CheckpointRetention& retention = job.checkpoint_retention();
  if (retention.has_keep_last() && retention.keep_last() < 1) {
    violations.push_back({"checkpoint_retention.keep_last",
                          absl::StrCat("is ", retention.keep_last(), ": keep at least 1")});
  }
  if (retention.keep_every_steps() < 0) {
    violations.push_back({"checkpoint_retention.keep_every_steps",
                          absl::StrCat("is ", retention.keep_every_steps(), ": use 0 for none")});
  }
  if (job.labels_size() > limits.count) {
    violations.push_back(
        {"labels", absl::StrCat("has ", job.labels_size(), " entries: at most ", limits.count,
                                ", as the coordinator's --max_labels says")});
    return violations;
  }
  for (const auto& [key, value] : job.labels()) {
    if (IsValidLabelKey(key)) {
      CheckText(absl::StrCat("labels.", key), value, limits.characters, &violations);
    } else {
      violations.push_back(
          {"labels", absl::StrCat("the key '", key.substr(0, 80),
                                  "' is not of the form [a-z]([a-z0-9_-]{0,62})")});
    }
  }
  return violations;
}

}  // namespace lasp::server
