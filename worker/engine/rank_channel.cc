#include "worker/engine/rank_channel.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

constexpr size_t kLengthBytes = 4;

absl::Status SocketError(absl::string_view action, int error) {
  const std::string message = absl::StrCat("rank channel: ", action, ": ", std::strerror(error));
  return error == EAGAIN || error == EWOULDBLOCK ? absl::DeadlineExceededError(message)
                                                 : absl::UnavailableError(message);
}

// Reads exactly `size` bytes. False at the end of the stream before the first of them.
absl::StatusOr<bool> ReadExactly(int descriptor, char* data, size_t size) {
  size_t done = 0;
  while (done < size) {
    const ssize_t count = ::recv(descriptor, data + done, size - done, 0);
    if (count > 0) {
      done += static_cast<size_t>(count);
    } else if (count == 0 || errno == ECONNRESET) {
      if (done == 0) {
        return false;
      }
      return absl::DataLossError("rank channel: the stream ended inside a frame");
    } else if (errno != EINTR) {
      return SocketError("read", errno);
    }
  }
  return true;
}

}  // namespace

absl::StatusOr<std::string> EncodeFrame(const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  if (size > kMaxFrameBytes) {
    return absl::InvalidArgumentError(absl::StrCat("rank channel: a message of ", size,
                                                   " bytes exceeds the limit of ", kMaxFrameBytes));
  }
  std::string frame(kLengthBytes, '\0');
  for (size_t i = 0; i < kLengthBytes; ++i) {
    frame[i] = static_cast<char>((size >> (8 * i)) & 0xff);
  }
  message.AppendToString(&frame);
  return frame;
}

RankChannel::RankChannel(int descriptor, absl::Duration write_timeout) : descriptor_(descriptor) {
  const timeval timeout = absl::ToTimeval(write_timeout);
  ::setsockopt(descriptor_, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

RankChannel::~RankChannel() { ::close(descriptor_); }

absl::Status RankChannel::Write(const google::protobuf::MessageLite& message) {
  LASP_ASSIGN_OR_RETURN(const std::string frame, EncodeFrame(message));
  MutexLock lock(&write_mutex_);
  size_t done = 0;
  while (done < frame.size()) {
    const ssize_t count =
        ::send(descriptor_, frame.data() + done, frame.size() - done, MSG_NOSIGNAL);
    if (count >= 0) {
      done += static_cast<size_t>(count);
    } else if (errno != EINTR) {
      return SocketError("write", errno);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> RankChannel::Read(google::protobuf::MessageLite* message) {
  unsigned char prefix[kLengthBytes];
  LASP_ASSIGN_OR_RETURN(const bool more,
                        ReadExactly(descriptor_, reinterpret_cast<char*>(prefix), kLengthBytes));
  if (!more) {
    return false;
  }
  uint32_t size = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    size |= static_cast<uint32_t>(prefix[i]) << (8 * i);
  }
  if (size > kMaxFrameBytes) {
    return absl::DataLossError(absl::StrCat("rank channel: a frame of ", size,
                                            " bytes exceeds the limit of ", kMaxFrameBytes));
  }
  std::string body(size, '\0');
  if (size > 0) {
    LASP_ASSIGN_OR_RETURN(const bool whole, ReadExactly(descriptor_, body.data(), size));
    if (!whole) {
      return absl::DataLossError("rank channel: the stream ended inside a frame");
    }
  }
  if (!message->ParseFromString(body)) {
    return absl::DataLossError("rank channel: a frame does not parse");
  }
  return true;
}

void RankChannel::Shutdown() { ::shutdown(descriptor_, SHUT_RDWR); }

}  // namespace lasp::worker
