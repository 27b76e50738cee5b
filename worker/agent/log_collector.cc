#include "worker/agent/log_collector.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/log.h"

namespace lasp::worker {
namespace {

// What a rank may have written and we not yet read: room for a burst while the disk is busy.
constexpr int kPipeBytes = 1 << 20;
constexpr size_t kReadBytes = 256 << 10;

}  // namespace

LogCollector::LogCollector()
    : epoll_(epoll_create1(EPOLL_CLOEXEC)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = wake_.get();
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event);
  thread_ = std::thread([this] { Run(); });
}

LogCollector::~LogCollector() {
  stopping_ = true;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));
  thread_.join();
}

void LogCollector::Add(UniqueFd pipe, std::shared_ptr<RankLog> log) {
  const int descriptor = pipe.get();
  fcntl(descriptor, F_SETPIPE_SZ, kPipeBytes);
  auto source = std::make_unique<Source>();
  source->pipe = std::move(pipe);
  source->log = std::move(log);
  MutexLock lock(&mutex_);
  sources_[descriptor] = std::move(source);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = descriptor;
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor, &event);
}

bool LogCollector::WaitUntilIdle(absl::Duration timeout) {
  const absl::Duration deadline = SystemClock().Monotonic() + timeout;
  MutexLock lock(&mutex_);
  while (!sources_.empty()) {
    const absl::Duration left = deadline - SystemClock().Monotonic();
    if (left <= absl::ZeroDuration()) {
      return false;
    }
    changed_.WaitWithTimeout(&mutex_, left);
  }
  return true;
}

void LogCollector::Run() {
  std::vector<char> buffer(kReadBytes);
  std::array<epoll_event, 64> events{};
  while (!stopping_) {
    const int count = epoll_wait(epoll_.get(), events.data(), events.size(), -1);
    for (int i = 0; i < count; ++i) {
      const int descriptor = events[static_cast<size_t>(i)].data.fd;
      Source* source = nullptr;
      {
        MutexLock lock(&mutex_);
        const auto found = sources_.find(descriptor);
        source = found == sources_.end() ? nullptr : found->second.get();
      }
      // One read a round: a rank that floods does not keep the others' lines back.
      if (source != nullptr && !ReadSome(source, &buffer)) {
        Close(descriptor);
      }
    }
  }
}

bool LogCollector::ReadSome(Source* source, std::vector<char>* buffer) {
  const ssize_t count = read(source->pipe.get(), buffer->data(), buffer->size());
  std::string lines;
  if (count > 0) {
    source->lines.Add(absl::string_view(buffer->data(), static_cast<size_t>(count)), absl::Now(),
                      &lines);
  } else if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
    return true;
  } else {
    source->lines.Finish(absl::Now(), &lines);
  }
  Store(source, std::move(lines));
  return count > 0;
}

void LogCollector::Store(Source* source, std::string lines) {
  if (lines.empty()) {
    return;
  }
  if (source->lost_bytes > 0) {
    lines = FormatLogLine(absl::StrCat("[", source->lost_bytes,
                                       " bytes of this log could not be written to disk]"),
                          absl::Now()) +
            lines;
  }
  const absl::Status stored = source->log->Append(lines);
  if (stored.ok()) {
    source->lost_bytes = 0;
    return;
  }
  if (source->lost_bytes == 0) {
    LASP_LOG(kError, "a rank's log is not written", {{"error", stored.message()}});
  }
  source->lost_bytes += lines.size();
}

void LogCollector::Close(int descriptor) {
  MutexLock lock(&mutex_);
  const auto found = sources_.find(descriptor);
  found->second->log->Close();
  sources_.erase(found);
  changed_.NotifyAll();
}

}  // namespace lasp::worker
