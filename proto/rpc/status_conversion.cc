#include "proto/rpc/status_conversion.h"

#include "proto/rpc/error_details.h"

namespace lasp {

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) {
    return grpc::Status::OK;
  }
  google::rpc::Status proto = StatusToProto(status);
  if (ErrorReason(status).empty()) {
    proto = StatusToProto(
        ErrorWithReason(status.code(), status.message(), absl::StatusCodeToString(status.code())));
    status.ForEachPayload([&proto](absl::string_view type_url, const absl::Cord& payload) {
      auto* detail = proto.add_details();
      detail->set_type_url(std::string(type_url));
      detail->set_value(std::string(payload));
    });
  }
  return {static_cast<grpc::StatusCode>(status.code()), proto.message(), proto.SerializeAsString()};
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) {
    return absl::OkStatus();
  }
  google::rpc::Status proto;
  if (!status.error_details().empty() && proto.ParseFromString(status.error_details()) &&
      proto.code() == static_cast<int>(status.error_code())) {
    return StatusFromProto(proto);
  }
  return {static_cast<absl::StatusCode>(status.error_code()), status.error_message()};
}

}  // namespace lasp
