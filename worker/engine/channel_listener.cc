#include "worker/engine/channel_listener.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/log.h"

namespace lasp::worker {
namespace {

// A signal handler can set the drain flag but not notify: the waits look at it this often.
constexpr absl::Duration kDrainPoll = absl::Milliseconds(100);

}  // namespace

ChannelListener::ChannelListener(RankChannel* channel, DrainRequest* drain,
                                 std::function<void()> on_lost)
    : channel_(*channel), drain_(*drain), on_lost_(std::move(on_lost)) {
  thread_ = std::thread([this] { Listen(); });
}

ChannelListener::~ChannelListener() {
  {
    MutexLock lock(&mutex_);
    closing_ = true;
  }
  channel_.Shutdown();
  thread_.join();
}

void ChannelListener::SetOnDump(std::function<void()> on_dump) {
  MutexLock lock(&call_mutex_);
  on_dump_ = std::move(on_dump);
}

void ChannelListener::SetOnLeave(std::function<void()> on_leave) {
  MutexLock lock(&call_mutex_);
  on_leave_ = std::move(on_leave);
}

bool ChannelListener::Call(const lasp::internal::v1::ToRank& message) {
  if (!message.has_dump() && !message.has_leave_state()) {
    return false;
  }
  MutexLock lock(&call_mutex_);
  const std::function<void()>& call = message.has_dump() ? on_dump_ : on_leave_;
  if (call != nullptr) {
    call();
  }
  return true;
}

void ChannelListener::Listen() {
  while (true) {
    lasp::internal::v1::ToRank message;
    const absl::StatusOr<bool> more = channel_.Read(&message);
    if (more.ok() && *more && Call(message)) {
      continue;
    }
    MutexLock lock(&mutex_);
    if (!more.ok() || !*more) {
      if (!closing_) {
        LASP_LOG(kError, "lost the agent: exiting",
                 {{"status", more.ok() ? "the channel is closed" : more.status().ToString()}});
        on_lost_();
      }
      return;
    }
    switch (message.body_case()) {
      case lasp::internal::v1::ToRank::kSetup:
        setup_ = std::move(*message.mutable_setup());
        break;
      case lasp::internal::v1::ToRank::kPeerAddresses:
        peer_addresses_ = std::move(*message.mutable_peer_addresses());
        break;
      case lasp::internal::v1::ToRank::kStart:
        start_ = message.start();
        break;
      case lasp::internal::v1::ToRank::kDrain:
        drain_.Request();
        break;
      case lasp::internal::v1::ToRank::kDump:
      case lasp::internal::v1::ToRank::kLeaveState:
      case lasp::internal::v1::ToRank::BODY_NOT_SET:
        break;
    }
    changed_.NotifyAll();
  }
}

template <typename Message>
absl::StatusOr<Message> ChannelListener::WaitFor(std::optional<Message> ChannelListener::* slot,
                                                 absl::Duration timeout, const char* what) {
  const absl::Duration deadline = SystemClock().Monotonic() + timeout;
  MutexLock lock(&mutex_);
  while (!(this->*slot).has_value()) {
    if (drain_.requested()) {
      return absl::CancelledError(absl::StrCat("asked to drain before ", what, " came"));
    }
    const absl::Duration left = deadline - SystemClock().Monotonic();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(
          absl::StrCat(what, " did not come within ", absl::FormatDuration(timeout)));
    }
    changed_.WaitWithTimeout(&mutex_, std::min(left, kDrainPoll));
  }
  return *(this->*slot);
}

absl::StatusOr<lasp::internal::v1::Setup> ChannelListener::WaitForSetup(absl::Duration timeout) {
  return WaitFor(&ChannelListener::setup_, timeout, "the agent's setup");
}

absl::StatusOr<lasp::v1::PeerAddresses> ChannelListener::WaitForPeerAddresses(
    absl::Duration timeout) {
  return WaitFor(&ChannelListener::peer_addresses_, timeout, "the addresses of the other ranks");
}

absl::StatusOr<lasp::v1::Start> ChannelListener::WaitForStart(absl::Duration timeout) {
  return WaitFor(&ChannelListener::start_, timeout, "the start");
}

}  // namespace lasp::worker
