#include "proto/spec/spec_check.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "proto/spec/data_check.h"
#include "proto/spec/spec_defaults.h"
#include "proto/spec/spec_validator.h"

namespace lasp {
namespace {

bool IsDataField(const FieldViolation& violation) {
  return absl::StartsWith(violation.field, "spec.data");
}

absl::Status DataError(const std::vector<DataViolation>& data) {
  std::vector<FieldViolation> violations;
  violations.reserve(data.size());
  for (const DataViolation& entry : data) {
    violations.push_back(entry.violation);
  }
  const absl::StatusCode code = data.front().code;
  const bool same =
      std::all_of(data.begin(), data.end(), [&](const auto& entry) { return entry.code == code; });
  const absl::Status error = InvalidFields(violations, "INVALID_DATA");
  absl::Status status(same ? code : absl::StatusCode::kInvalidArgument, error.message());
  error.ForEachPayload([&status](absl::string_view type_url, const absl::Cord& payload) {
    status.SetPayload(type_url, payload);
  });
  return status;
}

}  // namespace

absl::Status NormalizeAndCheckSpec(v1::TrainingSpec* spec,
                                   const std::vector<std::string>& path_roots,
                                   std::vector<FieldViolation> earlier) {
  FillDefaults(spec);
  std::vector<FieldViolation> violations = std::move(earlier);
  const std::vector<FieldViolation> fields = ValidateSpec(*spec);
  violations.insert(violations.end(), fields.begin(), fields.end());
  std::vector<DataViolation> data;
  if (std::none_of(violations.begin(), violations.end(), IsDataField)) {
    data = CheckData(*spec, path_roots);
  }
  if (violations.empty()) {
    return data.empty() ? absl::OkStatus() : DataError(data);
  }
  for (const DataViolation& entry : data) {
    violations.push_back(entry.violation);
  }
  return InvalidFields(violations);
}

}  // namespace lasp
