#include "server/watch_hub.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"

namespace lasp::server {
namespace {

absl::Status Expired(absl::string_view why) {
  return ErrorWithReason(
      absl::StatusCode::kOutOfRange,
      absl::StrCat(why, "; list the jobs again and watch from the token of that list"),
      "RESUME_TOKEN_EXPIRED");
}

}  // namespace

struct Watch::Subscription {
  // Whether the last Next found nothing, so that on_ready is owed.
  std::atomic<bool> armed{false};
  std::atomic<bool> bookmark_due{false};
  // Of the monotonic clock, nanoseconds.
  std::atomic<int64_t> last_bookmark{0};

  // Touched by Next only.
  int64_t cursor = 0;
  bool in_snapshot = false;
  // Deletions up to here happened before the snapshot.
  int64_t snapshot_revision = 0;

  // Held during the callback, so that its owner can wait for it.
  Mutex callback_mutex;
  std::function<void()> on_ready GUARDED_BY(callback_mutex);

  void Wake() {
    if (armed.exchange(false)) {
      MutexLock lock(&callback_mutex);
      if (on_ready) {
        on_ready();
      }
    }
  }
};

Watch::~Watch() {
  hub_->Remove(subscription_);
  MutexLock lock(&subscription_->callback_mutex);
  subscription_->on_ready = nullptr;
}

absl::StatusOr<WatchBatch> Watch::Next(int limit) {
  Subscription& state = *subscription_;
  WatchBatch batch;
  // Armed before looking: a change that comes after the look finds it so.
  state.armed = true;
  while (batch.changes.empty()) {
    std::vector<JobChange> changes = hub_->catalog_->ChangesAfter(state.cursor, limit);
    // After the look: what is forgotten from now on was there to be seen.
    const int64_t seen =
        state.in_snapshot ? std::max(state.cursor, state.snapshot_revision) : state.cursor;
    if (hub_->catalog_->compacted_revision() > seen) {
      return Expired("resume_token: the watch has fallen behind the deletions that are kept");
    }
    if (!changes.empty()) {
      state.cursor = changes.back().revision;
    }
    const bool all_seen = std::ssize(changes) < limit;
    if (state.in_snapshot) {
      std::erase_if(changes, [&state](const JobChange& change) {
        return change.job == nullptr && change.revision <= state.snapshot_revision;
      });
    }
    batch.changes = std::move(changes);
    if (all_seen) {
      if (state.in_snapshot) {
        state.in_snapshot = false;
        state.cursor = std::max(state.cursor, state.snapshot_revision);
        batch.snapshot_end = true;
        batch.bookmark = true;
      }
      break;
    }
  }
  if (state.bookmark_due.exchange(false) && !state.in_snapshot) {
    batch.bookmark = true;
  }
  if (batch.bookmark) {
    state.last_bookmark = absl::ToInt64Nanoseconds(hub_->clock_->Monotonic());
  }
  if (!batch.changes.empty() || batch.bookmark) {
    state.armed = false;
  }
  batch.resume_token = hub_->ResumeToken(state.cursor);
  return batch;
}

WatchHub::WatchHub(const JobCatalog* catalog, std::string store_uuid, const Clock* clock,
                   absl::Duration bookmark_interval)
    : catalog_(catalog),
      store_uuid_(std::move(store_uuid)),
      clock_(clock),
      bookmark_interval_(bookmark_interval) {}

WatchHub::~WatchHub() = default;

absl::StatusOr<std::unique_ptr<Watch>> WatchHub::Subscribe(const std::string& resume_token,
                                                           std::function<void()> on_ready) {
  auto subscription = std::make_shared<Subscription>();
  {
    MutexLock lock(&subscription->callback_mutex);
    subscription->on_ready = std::move(on_ready);
  }
  if (resume_token.empty()) {
    subscription->in_snapshot = true;
    subscription->snapshot_revision = catalog_->revision();
  } else {
    LASP_ASSIGN_OR_RETURN(subscription->cursor, ParseToken(resume_token));
  }
  subscription->last_bookmark = absl::ToInt64Nanoseconds(clock_->Monotonic());
  {
    MutexLock lock(&mutex_);
    subscriptions_.push_back(subscription);
  }
  return std::unique_ptr<Watch>(new Watch(this, std::move(subscription)));
}

std::string WatchHub::ResumeToken(int64_t revision) const {
  return absl::WebSafeBase64Escape(absl::StrCat(store_uuid_, ":", revision));
}

absl::StatusOr<int64_t> WatchHub::ParseToken(const std::string& token) const {
  std::string plain;
  int64_t revision = 0;
  const std::vector<std::string> parts = absl::WebSafeBase64Unescape(token, &plain)
                                             ? std::vector<std::string>(absl::StrSplit(plain, ':'))
                                             : std::vector<std::string>();
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[1], &revision) || revision < 0) {
    return ErrorWithReason(absl::StatusCode::kInvalidArgument,
                           "resume_token: not a token of this service; use one from a list or a "
                           "watch, or none to start anew",
                           "INVALID_RESUME_TOKEN");
  }
  if (parts[0] != store_uuid_ || revision < catalog_->compacted_revision() ||
      revision > catalog_->revision()) {
    return Expired("resume_token: too old or of another store");
  }
  return revision;
}

size_t WatchHub::watch_count() const {
  MutexLock lock(&mutex_);
  return subscriptions_.size();
}

void WatchHub::Notify() {
  std::vector<std::shared_ptr<Subscription>> woken;
  {
    MutexLock lock(&mutex_);
    for (const auto& subscription : subscriptions_) {
      if (subscription->armed) {
        woken.push_back(subscription);
      }
    }
  }
  for (const auto& subscription : woken) {
    subscription->Wake();
  }
}

void WatchHub::Tick() {
  const int64_t due =
      absl::ToInt64Nanoseconds(clock_->Monotonic()) - absl::ToInt64Nanoseconds(bookmark_interval_);
  std::vector<std::shared_ptr<Subscription>> woken;
  {
    MutexLock lock(&mutex_);
    for (const auto& subscription : subscriptions_) {
      if (subscription->last_bookmark <= due && !subscription->bookmark_due.exchange(true)) {
        woken.push_back(subscription);
      }
    }
  }
  for (const auto& subscription : woken) {
    subscription->Wake();
  }
}

void WatchHub::Remove(const std::shared_ptr<Subscription>& subscription) {
  MutexLock lock(&mutex_);
  std::erase(subscriptions_, subscription);
}

}  // namespace lasp::server
