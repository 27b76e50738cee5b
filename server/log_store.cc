#include "server/log_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/unique_fd.h"
#include "server/log_file.h"
#include "server/log_line.h"
#include "server/store_error.h"

namespace lasp::server {
namespace {

namespace fs = std::filesystem;

// Logs whose folders need not be read again.
constexpr size_t kMaxCachedLogs = 16'384;
// Covers a chunk of the worker plane, so that a page always holds a whole line.
constexpr int64_t kMinReadBytes = 512 << 10;

}  // namespace

// One rank's segments: where each begins, and where the last one ends.
struct LogStore::RankLog {
  Mutex mutex;
  bool loaded GUARDED_BY(mutex) = false;
  std::vector<int64_t> starts GUARDED_BY(mutex);
  int64_t end GUARDED_BY(mutex) = 0;
  // Where the last chunk began that was refused for leaving a gap.
  int64_t refused_offset GUARDED_BY(mutex) = -1;
  std::string directory;

  std::string SegmentPath(int64_t start) const {
    return absl::StrFormat("%s/%016d.log", directory, start);
  }

  absl::Status Load() REQUIRES_LOCK(mutex);
};

absl::Status LogStore::RankLog::Load() {
  if (loaded) {
    return absl::OkStatus();
  }
  starts.clear();
  end = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    int64_t start = 0;
    if (absl::SimpleAtoi(entry.path().stem().string(), &start)) {
      starts.push_back(start);
    }
  }
  std::sort(starts.begin(), starts.end());
  if (!starts.empty()) {
    const std::string path = SegmentPath(starts.back());
    const auto size = static_cast<int64_t>(fs::file_size(path, error));
    // A crash of the machine may have cut the last line: its agent sends it again, whole.
    const absl::StatusOr<int64_t> cut_bytes = error
                                                  ? StoreUnavailable("look at", path, error.value())
                                                  : CutLineBytes(path, size, kMinReadBytes);
    if (!cut_bytes.ok()) {
      if (fs::exists(path, error) || error) {
        return cut_bytes.status();
      }
      // A job that is being deleted loses its files while they are looked at.
      starts.clear();
      loaded = true;
      return absl::OkStatus();
    }
    const int64_t cut = *cut_bytes;
    if (cut > 0 && truncate(path.c_str(), size - cut) != 0) {
      return StoreUnavailable("truncate", path, errno);
    }
    end = starts.back() + size - cut;
  }
  loaded = true;
  return absl::OkStatus();
}

struct LogStore::Subscription::State {
  // Held during the callback, so that its owner can wait for it.
  Mutex callback_mutex;
  std::function<void()> on_lines GUARDED_BY(callback_mutex);
  std::string uid;
};

LogStore::Subscription::~Subscription() {
  {
    MutexLock lock(&store_->mutex_);
    const auto [first, last] = store_->subscriptions_.equal_range(state_->uid);
    for (auto position = first; position != last; ++position) {
      if (position->second == state_) {
        store_->subscriptions_.erase(position);
        break;
      }
    }
  }
  MutexLock lock(&state_->callback_mutex);
  state_->on_lines = nullptr;
}

LogStore::LogStore(std::string directory, int64_t max_bytes, int64_t segment_bytes)
    : directory_(std::move(directory)), max_bytes_(max_bytes), segment_bytes_(segment_bytes) {}

std::string LogStore::JobDirectory(const std::string& uid) const {
  return absl::StrCat(directory_, "/", uid);
}

std::string LogStore::RankDirectory(const LogKey& key) const {
  return absl::StrCat(JobDirectory(key.uid), "/gen-", key.generation, "/rank-", key.rank);
}

std::shared_ptr<LogStore::RankLog> LogStore::Open(const LogKey& key) {
  MutexLock lock(&mutex_);
  std::shared_ptr<RankLog>& log = logs_[key];
  if (log == nullptr) {
    log = std::make_shared<RankLog>();
    log->directory = RankDirectory(key);
    const std::shared_ptr<RankLog> kept = log;
    if (logs_.size() > kMaxCachedLogs) {
      std::erase_if(logs_, [](const auto& entry) { return entry.second.use_count() == 1; });
    }
    return kept;
  }
  return log;
}

absl::StatusOr<int64_t> LogStore::Append(const LogKey& key, int64_t offset,
                                         absl::string_view data) {
  const std::shared_ptr<RankLog> log = Open(key);
  int64_t end = 0;
  {
    MutexLock lock(&log->mutex);
    LASP_RETURN_IF_ERROR(log->Load());
    if (offset + static_cast<int64_t>(data.size()) <= log->end) {
      return log->end;
    }
    bool new_segment = log->starts.empty() || log->end - log->starts.back() >= segment_bytes_;
    if (offset > log->end) {
      if (log->refused_offset != offset) {
        log->refused_offset = offset;
        return log->end;
      }
      // Asked for what lies between, the agent came back with this: it has rotated it away.
      log->end = offset;
      new_segment = true;
    }
    data.remove_prefix(static_cast<size_t>(log->end - offset));
    if (new_segment) {
      std::error_code error;
      fs::create_directories(log->directory, error);
      if (error) {
        return StoreUnavailable("create", log->directory, error.value());
      }
      log->starts.push_back(log->end);
    }
    const std::string path = log->SegmentPath(log->starts.back());
    const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    if (fd.get() < 0) {
      const int error = errno;
      log->loaded = false;
      return StoreUnavailable("open", path, error);
    }
    // After a failed write the same bytes go to the same place again.
    LASP_RETURN_IF_ERROR(WriteAll(fd.get(), path, data, log->end - log->starts.back()));
    log->end += static_cast<int64_t>(data.size());
    end = log->end;
    while (log->starts.size() > 1 && log->end - log->starts[1] >= max_bytes_) {
      unlink(log->SegmentPath(log->starts.front()).c_str());
      log->starts.erase(log->starts.begin());
    }
  }
  Notify(key.uid);
  return end;
}

absl::StatusOr<int64_t> LogStore::End(const LogKey& key) {
  const std::shared_ptr<RankLog> log = Open(key);
  MutexLock lock(&log->mutex);
  LASP_RETURN_IF_ERROR(log->Load());
  return log->end;
}

absl::StatusOr<LogPage> LogStore::Read(const LogKey& key, int64_t offset, int64_t max_bytes,
                                       absl::Time since) {
  const std::shared_ptr<RankLog> log = Open(key);
  std::vector<int64_t> starts;
  int64_t end = 0;
  {
    MutexLock lock(&log->mutex);
    LASP_RETURN_IF_ERROR(log->Load());
    starts = log->starts;
    end = log->end;
  }
  LogPage page;
  page.next_offset = end;
  page.at_end = true;
  if (starts.empty() || offset >= end) {
    return page;
  }
  offset = std::max(offset, starts.front());
  size_t segment =
      static_cast<size_t>(std::upper_bound(starts.begin(), starts.end(), offset) - starts.begin()) -
      1;
  // A whole segment is too old when the next one begins before `since`.
  while (since > absl::InfinitePast() && segment + 1 < starts.size()) {
    const auto head = ReadFileRange(log->SegmentPath(starts[segment + 1]), 0, 32);
    if (!head.ok() || SplitLogLine(*head).time >= since) {
      break;
    }
    ++segment;
    offset = starts[segment];
  }
  const int64_t segment_end = segment + 1 < starts.size() ? starts[segment + 1] : end;
  const std::string path = log->SegmentPath(starts[segment]);
  auto data = ReadFileRange(path, offset - starts[segment],
                            std::min(std::max(max_bytes, kMinReadBytes), segment_end - offset));
  std::error_code error;
  if (!data.ok() && segment + 1 < starts.size() && !fs::exists(path, error)) {
    // Rotated away since the look: go on with what is left.
    page.next_offset = segment_end;
    page.at_end = false;
    return page;
  }
  LASP_RETURN_IF_ERROR(data.status());
  size_t position = 0;
  while (position < data->size() && static_cast<int64_t>(position) < max_bytes) {
    const size_t line_feed = data->find('\n', position);
    if (line_feed == std::string::npos) {
      break;
    }
    const LogLineParts parts =
        SplitLogLine(absl::string_view(*data).substr(position, line_feed - position));
    if (parts.time >= since) {
      page.lines.push_back({.offset = offset + static_cast<int64_t>(position),
                            .time = parts.time,
                            .text = std::string(parts.text)});
    }
    position = line_feed + 1;
  }
  if (position == 0) {
    // No line feed in half a megabyte: no agent writes this. Skip it.
    position = data->size();
  }
  page.next_offset = offset + static_cast<int64_t>(position);
  if (data->empty()) {
    // The segment ends before the next one begins: what lay between was never received.
    page.next_offset = segment_end;
  }
  page.at_end = page.next_offset >= end;
  return page;
}

absl::StatusOr<int64_t> LogStore::TailOffset(const LogKey& key, int lines) {
  const std::shared_ptr<RankLog> log = Open(key);
  std::vector<int64_t> starts;
  int64_t end = 0;
  {
    MutexLock lock(&log->mutex);
    LASP_RETURN_IF_ERROR(log->Load());
    starts = log->starts;
    end = log->end;
  }
  // Line feeds are counted backwards; the one that ends the log begins no line after it.
  int64_t remaining = lines;
  for (auto start = starts.rbegin(); start != starts.rend(); ++start) {
    LASP_ASSIGN_OR_RETURN(const std::string data,
                          ReadFileRange(log->SegmentPath(*start), 0, end - *start));
    for (auto i = std::ssize(data) - 1; i >= 0; --i) {
      if (data[static_cast<size_t>(i)] == '\n' && remaining-- == 0) {
        return *start + i + 1;
      }
    }
    end = *start;
  }
  return end;
}

std::vector<int> LogStore::Ranks(const std::string& uid, int64_t generation) {
  constexpr absl::string_view kPrefix = "rank-";
  std::vector<int> ranks;
  std::error_code error;
  const std::string directory = absl::StrCat(JobDirectory(uid), "/gen-", generation);
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    int rank = 0;
    if (name.size() > kPrefix.size() && absl::SimpleAtoi(name.substr(kPrefix.size()), &rank)) {
      ranks.push_back(rank);
    }
  }
  std::sort(ranks.begin(), ranks.end());
  return ranks;
}

std::unique_ptr<LogStore::Subscription> LogStore::Subscribe(const std::string& uid,
                                                            std::function<void()> on_lines) {
  auto state = std::make_shared<Subscription::State>();
  {
    MutexLock lock(&state->callback_mutex);
    state->on_lines = std::move(on_lines);
    state->uid = uid;
  }
  {
    MutexLock lock(&mutex_);
    subscriptions_.emplace(uid, state);
  }
  return std::unique_ptr<Subscription>(new Subscription(this, std::move(state)));
}

size_t LogStore::subscription_count() const {
  MutexLock lock(&mutex_);
  return subscriptions_.size();
}

void LogStore::Notify(const std::string& uid) {
  std::vector<std::shared_ptr<Subscription::State>> woken;
  {
    MutexLock lock(&mutex_);
    const auto [first, last] = subscriptions_.equal_range(uid);
    for (auto position = first; position != last; ++position) {
      woken.push_back(position->second);
    }
  }
  for (const auto& state : woken) {
    MutexLock lock(&state->callback_mutex);
    if (state->on_lines) {
      state->on_lines();
    }
  }
}

void LogStore::RemoveSegment(const LogKey& key, int64_t start) {
  const std::shared_ptr<RankLog> log = Open(key);
  MutexLock lock(&log->mutex);
  // So that the end stays known when this was the last file.
  if (const absl::Status loaded = log->Load(); !loaded.ok()) {
    LASP_LOG(kWarning, "cannot remove a log's file", {{"error", loaded.message()}});
    return;
  }
  if (std::erase(log->starts, start) > 0) {
    unlink(log->SegmentPath(start).c_str());
  }
}

void LogStore::DeleteJob(const std::string& uid) {
  {
    MutexLock lock(&mutex_);
    std::erase_if(logs_, [&uid](const auto& entry) { return entry.first.uid == uid; });
  }
  std::error_code error;
  fs::remove_all(JobDirectory(uid), error);
  if (error) {
    LASP_LOG(kWarning, "cannot remove the logs of a deleted job",
             {{"directory", JobDirectory(uid)}, {"error", error.message()}});
  }
}

}  // namespace lasp::server
