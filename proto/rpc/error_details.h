// Errors with machine-readable details. An absl::Status carries each google.rpc detail as a payload
// under its type URL, so details survive from the place that knows to the wire and back.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace lasp {

// The domain of every ErrorInfo.
inline constexpr char kErrorDomain[] = "lasp.dev";

// One thing that is wrong with one field. `field` is a path such as `spec.data.sequence_length`.
struct FieldViolation {
  std::string field;
  std::string description;
};

// An error with an ErrorInfo. `reason` is UPPER_SNAKE_CASE.
absl::Status ErrorWithReason(absl::StatusCode code, absl::string_view message,
                             absl::string_view reason,
                             const std::map<std::string, std::string>& metadata = {});

// INVALID_ARGUMENT with every violation in a BadRequest and an ErrorInfo of the reason given. The
// message names the first violation and how many there are. `violations` must not be empty.
absl::Status InvalidFields(const std::vector<FieldViolation>& violations,
                           absl::string_view reason = "INVALID_SPEC");

// Empty where the status has none.
std::string ErrorReason(const absl::Status& status);
// Of the ErrorInfo; empty where there is none.
std::string ErrorMetadata(const absl::Status& status, const std::string& key);
std::vector<FieldViolation> FieldViolations(const absl::Status& status);

// To and from google.rpc.Status, payloads included.
google::rpc::Status StatusToProto(const absl::Status& status);
absl::Status StatusFromProto(const google::rpc::Status& proto);

}  // namespace lasp
