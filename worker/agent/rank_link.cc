#include "worker/agent/rank_link.h"

#include <sys/socket.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "worker/engine/rank_channel.h"

namespace lasp::worker {
namespace {

constexpr size_t kPrefixBytes = 4;
// Taken at a time, so that a rank that talks without end does not hold up the others.
constexpr size_t kMaxTakenBytes = 1 << 20;

uint32_t FrameBytes(const char* prefix) {
  uint32_t size = 0;
  for (size_t i = 0; i < kPrefixBytes; ++i) {
    size |= static_cast<uint32_t>(static_cast<unsigned char>(prefix[i])) << (8 * i);
  }
  return size;
}

}  // namespace

absl::Status RankLink::Send(const lasp::internal::v1::ToRank& message) {
  LASP_ASSIGN_OR_RETURN(const std::string frame, EncodeFrame(message));
  if (unwritten_.size() > kMaxFrameBytes) {
    return absl::ResourceExhaustedError("the rank does not read its channel");
  }
  unwritten_ += frame;
  Flush();
  return absl::OkStatus();
}

void RankLink::Flush() {
  size_t done = 0;
  while (done < unwritten_.size()) {
    const ssize_t count =
        send(descriptor_.get(), unwritten_.data() + done, unwritten_.size() - done, MSG_NOSIGNAL);
    if (count > 0) {
      done += static_cast<size_t>(count);
    } else if (count == 0 || errno == EAGAIN) {
      break;
    } else if (errno != EINTR) {
      done = unwritten_.size();
    }
  }
  unwritten_.erase(0, done);
}

absl::StatusOr<std::vector<lasp::internal::v1::FromRank>> RankLink::Receive() {
  char buffer[64 << 10];
  size_t taken = 0;
  while (taken < kMaxTakenBytes) {
    const ssize_t count = recv(descriptor_.get(), buffer, sizeof(buffer), 0);
    if (count > 0) {
      unparsed_.append(buffer, static_cast<size_t>(count));
      taken += static_cast<size_t>(count);
    } else if (count < 0 && errno == EINTR) {
      continue;
    } else {
      closed_ = closed_ || count == 0 || errno != EAGAIN;
      break;
    }
  }
  std::vector<lasp::internal::v1::FromRank> messages;
  size_t start = 0;
  while (unparsed_.size() - start >= kPrefixBytes) {
    const uint32_t size = FrameBytes(unparsed_.data() + start);
    if (size > kMaxFrameBytes) {
      return absl::DataLossError(absl::StrCat("the rank sent a frame of ", size, " bytes"));
    }
    if (unparsed_.size() - start - kPrefixBytes < size) {
      break;
    }
    if (!messages.emplace_back().ParseFromArray(unparsed_.data() + start + kPrefixBytes,
                                                static_cast<int>(size))) {
      return absl::DataLossError("the rank sent a frame that does not parse");
    }
    start += kPrefixBytes + size;
  }
  unparsed_.erase(0, start);
  return messages;
}

}  // namespace lasp::worker
