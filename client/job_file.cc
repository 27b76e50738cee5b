#include "client/job_file.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/nearest_name.h"
#include "client/proto_reader.h"
#include "client/text_file.h"
#include "client/yaml_document.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using lasp::v1::TrainingJob;

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr char kReason[] = "INVALID_JOB_FILE";

const std::vector<std::string>& UserFields() {
  static const auto* const fields =
      new std::vector<std::string>{"display_name", "labels", "checkpoint_retention", "spec"};
  return *fields;
}

bool IsUserField(const std::string& name) {
  const auto& fields = UserFields();
  return std::find(fields.begin(), fields.end(), name) != fields.end();
}

// Why a top-level field of TrainingJob cannot be given, or that there is none of this name.
std::string WhyNotGiven(const std::string& name) {
  if (name == "name" || name == "id") {
    return "is chosen with --id, not in the file";
  }
  if (name == "start_from") {
    return "is chosen with --from, not in the file";
  }
  if (TrainingJob::descriptor()->FindFieldByName(name) != nullptr) {
    return "is set by the coordinator: leave it out";
  }
  if (lasp::v1::TrainingSpec::descriptor()->FindFieldByName(name) != nullptr) {
    return absl::StrCat("unknown field; it belongs under spec: spec.", name);
  }
  return absl::StrCat("unknown field", Suggestion(name, UserFields()));
}

void CollectLines(const YamlNode& node, const std::string& path,
                  std::map<std::string, int>* lines) {
  for (size_t i = 0; i < node.items.size(); ++i) {
    const YamlNode& item = node.items[i];
    const bool in_map = node.kind == YamlNode::Kind::kMap;
    const std::string item_path =
        in_map ? JoinPath(path, item.key) : absl::StrCat(path, "[", i, "]");
    (*lines)[item_path] = in_map ? item.key_line : item.line;
    CollectLines(item, item_path, lines);
  }
}

absl::Status SettingError(absl::string_view path, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("--set ", path, ": ", why));
}

absl::Status ViolationsToSettingError(const std::vector<FieldViolation>& violations) {
  std::vector<std::string> texts;
  texts.reserve(violations.size());
  for (const FieldViolation& violation : violations) {
    texts.push_back(absl::StrCat("--set ", violation.field, ": ", violation.description));
  }
  return absl::InvalidArgumentError(absl::StrJoin(texts, "; "));
}

// Sets labels.KEY: a map's entries have no field of their own.
void SetLabel(const std::string& key, const YamlNode& value, TrainingJob* job,
              std::vector<FieldViolation>* violations) {
  if (value.kind == YamlNode::Kind::kNull) {
    job->mutable_labels()->erase(key);
  } else if (value.kind == YamlNode::Kind::kScalar) {
    (*job->mutable_labels())[key] = value.text;
  } else {
    violations->push_back(
        {absl::StrCat("labels.", key), absl::StrCat("expected a text, got ", DescribeNode(value))});
  }
}

}  // namespace

absl::StatusOr<std::string> ReadJobText(const std::string& path) {
  absl::StatusOr<std::string> text = ReadTextFile(path, kMaxFileBytes);
  if (absl::IsOutOfRange(text.status())) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": larger than 1 MiB, which no job file is"));
  }
  return text;
}

absl::StatusOr<JobFile> ParseJobFile(absl::string_view text) {
  LASP_ASSIGN_OR_RETURN(YamlNode root, ParseYaml(text));
  if (root.kind == YamlNode::Kind::kNull) {
    return absl::InvalidArgumentError("the file is empty; expected a map with a spec");
  }
  if (root.kind != YamlNode::Kind::kMap) {
    return absl::InvalidArgumentError(absl::StrCat(
        "expected a map with display_name, labels and spec, got ", DescribeNode(root)));
  }
  JobFile file;
  std::vector<FieldViolation> violations;
  YamlNode given = root;
  given.items.clear();
  for (YamlNode& item : root.items) {
    if (!IsUserField(item.key)) {
      violations.push_back(
          {item.key, absl::StrCat(WhyNotGiven(item.key), " (line ", item.key_line, ")")});
      continue;
    }
    given.items.push_back(std::move(item));
  }
  ReadMessage(given, "", &file.job, &violations);
  if (!violations.empty()) {
    return InvalidFields(violations, kReason);
  }
  CollectLines(given, "", &file.lines);
  return file;
}

absl::Status ApplySetting(absl::string_view setting, TrainingJob* job) {
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(setting, absl::MaxSplits('=', 1));
  const std::string& path = parts.first;
  if (path.empty() || path.size() == setting.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--set ", setting, ": expected PATH=VALUE, such as spec.max_steps=100"));
  }
  const auto value = ParseYaml(parts.second);
  if (!value.ok()) {
    return SettingError(path, absl::StrCat("the value is not YAML: ", value.status().message()));
  }
  YamlNode node = *value;
  node.line = 0;  // of no use to someone who reads the command
  const std::vector<std::string> names = absl::StrSplit(path, '.');
  if (!IsUserField(names.front())) {
    return SettingError(path, WhyNotGiven(names.front()));
  }
  std::vector<FieldViolation> violations;
  if (names.front() == "labels" && names.size() > 1) {
    // Keys have no dots.
    SetLabel(path.substr(path.find('.') + 1), node, job, &violations);
    return violations.empty() ? absl::OkStatus() : ViolationsToSettingError(violations);
  }
  Message* message = job;
  for (size_t i = 0; i < names.size(); ++i) {
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(names[i]);
    if (field == nullptr) {
      return SettingError(
          path, absl::StrCat("'", names[i], "' is no field of ", message->GetDescriptor()->name(),
                             Suggestion(names[i], FieldNames(*message->GetDescriptor()))));
    }
    if (i + 1 == names.size()) {
      ReadField(node, path, *field, message, &violations);
      break;
    }
    if (field->is_repeated() || field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      return SettingError(
          path,
          absl::StrCat("'", names[i], "' has no fields; give it whole: --set ",
                       absl::StrJoin(names.begin(), names.begin() + static_cast<int>(i) + 1, "."),
                       "=VALUE"));
    }
    message = message->GetReflection()->MutableMessage(message, field);
  }
  return violations.empty() ? absl::OkStatus() : ViolationsToSettingError(violations);
}

}  // namespace lasp::client
