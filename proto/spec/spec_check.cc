#include "proto/spec/spec_check.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/spec/data_check.h"
#include "proto/spec/spec_defaults.h"
#include "proto/spec/spec_validator.h"

namespace lasp {
namespace {

// An error travels in HTTP/2 trailers, of which clients take 8 KiB by default, base64 included.
constexpr size_t kMaxViolationBytes = 4800;
constexpr size_t kMaxDescriptionBytes = 400;

// Cuts text without splitting a UTF-8 character.
std::string Shorten(const std::string& text) {
  if (text.size() <= kMaxDescriptionBytes) {
    return text;
  }
  size_t end = kMaxDescriptionBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) {
    --end;
  }
  return absl::StrCat(text.substr(0, end), " ...");
}

std::vector<FieldViolation> FitTrailers(std::vector<FieldViolation> violations) {
  std::vector<FieldViolation> kept;
  size_t bytes = 0;
  for (FieldViolation& violation : violations) {
    violation.description = Shorten(violation.description);
    bytes += violation.field.size() + violation.description.size() + 8;
    if (bytes > kMaxViolationBytes) {
      kept.push_back({"spec", absl::StrCat("has ", violations.size() - kept.size(),
                                           " more violations: mend these first")});
      break;
    }
    kept.push_back(std::move(violation));
  }
  return kept;
}

bool IsDataField(const FieldViolation& violation) {
  return absl::StartsWith(violation.field, "spec.data");
}

absl::Status DataError(const std::vector<DataViolation>& data) {
  std::vector<FieldViolation> violations;
  for (const DataViolation& entry : data) {
    violations.push_back(entry.violation);
  }
  const absl::StatusCode code = data.front().code;
  const bool same =
      std::all_of(data.begin(), data.end(), [&](const auto& entry) { return entry.code == code; });
  const absl::Status error = InvalidFields(FitTrailers(std::move(violations)), "INVALID_DATA");
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
  return InvalidFields(FitTrailers(std::move(violations)));
}

}  // namespace lasp
