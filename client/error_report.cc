#include "client/error_report.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "client/utf8.h"
#include "proto/rpc/error_details.h"

namespace lasp::client {
namespace {

constexpr char kHintKey[] = "lasp.client/hint";
constexpr char kRequestIdKey[] = "lasp.client/request_id";
constexpr char kUnreachableReason[] = "UNREACHABLE";
constexpr char kWrongPortReason[] = "METHOD_NOT_SERVED";

std::string Payload(const absl::Status& status, const char* key) {
  const auto payload = status.GetPayload(key);
  return payload.has_value() ? std::string(*payload) : "";
}

std::string Hint(const absl::Status& status) {
  std::string hint = Payload(status, kHintKey);
  if (!hint.empty()) {
    return hint;
  }
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      if (ErrorReason(status) != kUnreachableReason && !ErrorReason(status).empty()) {
        return "";  // the coordinator itself says so
      }
      return "start a coordinator with 'lasp-server --data_dir DIR', or name another with --server "
             "or LASP_SERVER";
    case absl::StatusCode::kUnauthenticated:
      return "name a token with LASP_TOKEN, --token_file or a context ('lasp help config')";
    case absl::StatusCode::kDeadlineExceeded:
      return "it may be busy: try again, or give it longer with --timeout";
    case absl::StatusCode::kUnimplemented:
      if (ErrorReason(status) == kWrongPortReason) {
        return "--server or LASP_SERVER names the coordinator's --api_address, 127.0.0.1:7070 "
               "unless it was told otherwise";
      }
      return "the coordinator may be older than this program: compare with 'lasp version'";
    default:
      return "";
  }
}

// Whether the change may have happened although there was no answer.
bool OutcomeUnknown(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable ||
         status.code() == absl::StatusCode::kDeadlineExceeded ||
         status.code() == absl::StatusCode::kInternal ||
         status.code() == absl::StatusCode::kUnknown;
}

}  // namespace

absl::Status WithHint(absl::Status status, absl::string_view hint) {
  status.SetPayload(kHintKey, absl::Cord(hint));
  return status;
}

absl::Status WithRequestId(absl::Status status, absl::string_view request_id) {
  status.SetPayload(kRequestIdKey, absl::Cord(request_id));
  return status;
}

absl::Status Unreachable(absl::string_view address, absl::string_view why) {
  return ErrorWithReason(absl::StatusCode::kUnavailable,
                         absl::StrCat("cannot reach a coordinator at ", address, ": ", why),
                         kUnreachableReason);
}

std::string ErrorReport(absl::string_view what, const absl::Status& status,
                        const Terminal& terminal, bool verbose) {
  const auto violations = FieldViolations(status);
  const std::string reason = ErrorReason(status);
  // What comes from a server or a file must not steer the terminal.
  const std::string message =
      violations.size() > 1
          ? absl::StrCat(violations.size(), " things are wrong:")
          : Printable(status.message().empty() ? absl::StatusCodeToString(status.code())
                                               : status.message());
  std::string report = absl::StrCat(Paint("error:", Style::kBad, terminal.color), " ");
  if (reason != kUnreachableReason && !what.empty()) {
    absl::StrAppend(&report, what, ": ");
  }
  absl::StrAppend(&report, message);
  if (violations.size() > 1) {
    for (const FieldViolation& violation : violations) {
      absl::StrAppend(&report, "\n  ", Printable(violation.field), ": ",
                      Printable(violation.description));
    }
  }
  const std::string hint = Hint(status);
  if (!hint.empty()) {
    absl::StrAppend(&report, "\n", Paint("hint:", Style::kBold, terminal.color), " ", hint);
  }
  const std::string request_id = Payload(status, kRequestIdKey);
  if (!request_id.empty() && (verbose || OutcomeUnknown(status))) {
    absl::StrAppend(&report, "\nrequest id: ", request_id);
  }
  if (verbose) {
    absl::StrAppend(&report, "\ncode: ", absl::StatusCodeToString(status.code()));
    if (!reason.empty()) {
      absl::StrAppend(&report, ", reason: ", Printable(reason));
    }
  }
  return report;
}

}  // namespace lasp::client
