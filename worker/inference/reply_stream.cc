#include "worker/inference/reply_stream.h"

#include <google/protobuf/util/delimited_message_util.h>

namespace lasp::worker {

absl::Status ReplyStream::WriteReady() const {
  lasp::internal::v1::ModelReply reply;
  reply.mutable_ready()->set_device(device_);
  return Write(reply);
}

absl::Status ReplyStream::Write(const lasp::internal::v1::ModelReply& reply) const {
  return google::protobuf::util::SerializeDelimitedToFileDescriptor(reply, descriptor_)
             ? absl::OkStatus()
             : absl::CancelledError("nobody reads the answers");
}

}  // namespace lasp::worker
