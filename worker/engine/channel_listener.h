// What the agent tells a rank, received on a thread of its own.
#pragma once

#include <functional>
#include <optional>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "proto/rpc/mutex.h"
#include "worker/engine/drain_request.h"
#include "worker/engine/rank_channel.h"

namespace lasp::worker {

// Thread-safe.
class ChannelListener {
 public:
  // Calls `on_lost` on its own thread when the agent's end closes or what it says cannot be read: a
  // rank without its agent must end at once, whatever its other threads are doing. Sets `drain` on
  // DrainRank. All pointers must outlive this.
  ChannelListener(RankChannel* channel, DrainRequest* drain, std::function<void()> on_lost);
  // Called on the listener's thread when the agent asks where the rank is; null for nobody. Returns
  // when a call under way has ended.
  void SetOnDump(std::function<void()> on_dump);
  // Likewise, when it asks that the rank leave the training's state and end.
  void SetOnLeave(std::function<void()> on_leave);
  // Closes the channel for reading and writing.
  ~ChannelListener();
  ChannelListener(const ChannelListener&) = delete;
  ChannelListener& operator=(const ChannelListener&) = delete;

  // Each waits for its message: DEADLINE_EXCEEDED after `timeout`, CANCELLED when a drain is asked
  // for first.
  absl::StatusOr<lasp::internal::v1::Setup> WaitForSetup(absl::Duration timeout);
  absl::StatusOr<lasp::v1::PeerAddresses> WaitForPeerAddresses(absl::Duration timeout);
  absl::StatusOr<lasp::v1::Start> WaitForStart(absl::Duration timeout);

 private:
  void Listen();
  // True where the message is for one of the two.
  bool Call(const lasp::internal::v1::ToRank& message);
  // `slot` is one of the fields below.
  template <typename Message>
  absl::StatusOr<Message> WaitFor(std::optional<Message> ChannelListener::* slot,
                                  absl::Duration timeout, const char* what);

  RankChannel& channel_;
  DrainRequest& drain_;
  const std::function<void()> on_lost_;
  // Held during a call.
  Mutex call_mutex_;
  std::function<void()> on_dump_ GUARDED_BY(call_mutex_);
  std::function<void()> on_leave_ GUARDED_BY(call_mutex_);
  Mutex mutex_;
  CondVar changed_;
  bool closing_ GUARDED_BY(mutex_) = false;
  std::optional<lasp::internal::v1::Setup> setup_ GUARDED_BY(mutex_);
  std::optional<lasp::v1::PeerAddresses> peer_addresses_ GUARDED_BY(mutex_);
  std::optional<lasp::v1::Start> start_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace lasp::worker
