#include "server/wire_status.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_conversion.h"

namespace lasp::server {
namespace {

constexpr size_t kMaxMessageBytes = 700;
constexpr size_t kMaxDescriptionBytes = 512;
// The details travel in base64 (4/3) beside the message, which they repeat and which is
// percent-encoded.
constexpr size_t kMaxDetailBytes = 2'800;

// Cuts at a character's border.
std::string Clip(absl::string_view text, size_t limit) {
  if (text.size() <= limit) {
    return std::string(text);
  }
  size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) {
    --end;
  }
  return absl::StrCat(text.substr(0, end), "…");
}

// The violations that fit.
std::string ClipBadRequest(const absl::Cord& payload) {
  google::rpc::BadRequest all;
  google::rpc::BadRequest kept;
  if (!all.ParseFromString(std::string(payload))) {
    return "";
  }
  size_t size = 0;
  for (const auto& violation : all.field_violations()) {
    google::rpc::BadRequest::FieldViolation clipped;
    clipped.set_field(Clip(violation.field(), kMaxDescriptionBytes));
    clipped.set_description(Clip(violation.description(), kMaxDescriptionBytes));
    size += clipped.ByteSizeLong() + 4;
    if (size > kMaxDetailBytes) {
      break;
    }
    *kept.add_field_violations() = std::move(clipped);
  }
  return kept.SerializeAsString();
}

}  // namespace

grpc::Status ToWireStatus(const absl::Status& status) {
  size_t detail_bytes = 0;
  status.ForEachPayload([&detail_bytes](absl::string_view, const absl::Cord& payload) {
    detail_bytes += payload.size();
  });
  if (status.ok() ||
      (status.message().size() <= kMaxMessageBytes && detail_bytes <= kMaxDetailBytes)) {
    return ToGrpcStatus(status);
  }
  absl::Status clipped(status.code(), Clip(status.message(), kMaxMessageBytes));
  status.ForEachPayload([&clipped](absl::string_view type_url, const absl::Cord& payload) {
    const bool bad_request = type_url == "type.googleapis.com/google.rpc.BadRequest";
    if (bad_request) {
      clipped.SetPayload(type_url, absl::Cord(ClipBadRequest(payload)));
    } else if (payload.size() <= kMaxDescriptionBytes) {
      clipped.SetPayload(type_url, payload);
    }
  });
  return ToGrpcStatus(clipped);
}

}  // namespace lasp::server
