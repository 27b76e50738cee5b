#include "server/event_log.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"

namespace lasp::server {
namespace {

template <typename Events>
auto FirstAfter(const Events& events, int64_t sequence) {
  return std::upper_bound(
      events.begin(), events.end(), sequence,
      [](int64_t after, const EventPtr& event) { return after < event->sequence(); });
}

}  // namespace

struct EventLog::Subscription::State {
  // Whether the last Next found nothing, so that on_ready is owed.
  std::atomic<bool> armed{false};
  // Touched by Next only.
  int64_t cursor = 0;
  // Held during the callback, so that its owner can wait for it.
  Mutex callback_mutex;
  std::function<void()> on_ready GUARDED_BY(callback_mutex);
};

EventLog::Subscription::~Subscription() {
  {
    MutexLock lock(&log_->mutex_);
    std::erase(log_->subscriptions_, state_);
  }
  MutexLock lock(&state_->callback_mutex);
  state_->on_ready = nullptr;
}

absl::StatusOr<std::vector<EventPtr>> EventLog::Subscription::Next(int limit) {
  std::vector<EventPtr> found;
  MutexLock lock(&log_->mutex_);
  LASP_RETURN_IF_ERROR(log_->CheckCursor(state_->cursor));
  const auto first = FirstAfter(log_->events_, state_->cursor);
  const auto count = std::min<ptrdiff_t>(limit, log_->events_.end() - first);
  found.assign(first, first + count);
  // An event that comes after this look finds it armed: both are under the lock.
  state_->armed = found.empty();
  if (!found.empty()) {
    state_->cursor = found.back()->sequence();
  }
  return found;
}

EventLog::EventLog(size_t capacity) : capacity_(std::max<size_t>(1, capacity)) {}

EventLog::~EventLog() = default;

std::vector<EventPtr> EventLog::Before(int64_t before) const {
  MutexLock lock(&mutex_);
  return {events_.begin(), FirstAfter(events_, before - 1)};
}

int64_t EventLog::newest() const {
  MutexLock lock(&mutex_);
  return newest_;
}

absl::Status EventLog::CheckCursor(int64_t after) const {
  if (after >= forgotten_ && after <= newest_) {
    return absl::OkStatus();
  }
  return ErrorWithReason(absl::StatusCode::kOutOfRange,
                         "resume_token: events after it are forgotten, or it is of another store; "
                         "list the events again and watch from the token of that list",
                         "RESUME_TOKEN_EXPIRED");
}

absl::StatusOr<std::unique_ptr<EventLog::Subscription>> EventLog::Subscribe(
    int64_t after, std::function<void()> on_ready) {
  auto state = std::make_shared<Subscription::State>();
  state->cursor = after;
  {
    MutexLock lock(&state->callback_mutex);
    state->on_ready = std::move(on_ready);
  }
  MutexLock lock(&mutex_);
  LASP_RETURN_IF_ERROR(CheckCursor(after));
  subscriptions_.push_back(state);
  return std::unique_ptr<Subscription>(new Subscription(this, std::move(state)));
}

size_t EventLog::subscription_count() const {
  MutexLock lock(&mutex_);
  return subscriptions_.size();
}

void EventLog::Push(lasp::v1::Event event) {
  newest_ = std::max(newest_, event.sequence());
  events_.push_back(std::make_shared<const lasp::v1::Event>(std::move(event)));
  if (events_.size() > capacity_) {
    forgotten_ = events_.front()->sequence();
    events_.pop_front();
  }
}

void EventLog::Restore(std::vector<lasp::v1::Event> events, int64_t newest, bool complete) {
  MutexLock lock(&mutex_);
  if (!complete && !events.empty()) {
    forgotten_ = events.front().sequence() - 1;
  }
  for (lasp::v1::Event& event : events) {
    Push(std::move(event));
  }
  newest_ = std::max(newest_, newest);
}

void EventLog::Append(const std::vector<lasp::v1::Event>& events) {
  std::vector<std::shared_ptr<Subscription::State>> woken;
  {
    MutexLock lock(&mutex_);
    for (const lasp::v1::Event& event : events) {
      Push(event);
    }
    for (const auto& state : subscriptions_) {
      if (!events.empty() && state->armed.exchange(false)) {
        woken.push_back(state);
      }
    }
  }
  for (const auto& state : woken) {
    MutexLock lock(&state->callback_mutex);
    if (state->on_ready) {
      state->on_ready();
    }
  }
}

}  // namespace lasp::server
