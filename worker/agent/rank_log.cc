#include "worker/agent/rank_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "proto/rpc/status_macros.h"
#include "worker/agent/log_lines.h"

namespace lasp::worker {
namespace {

constexpr char kSuffix[] = ".log";

absl::Status FileError(absl::string_view action, const std::string& path, int error) {
  const std::string message =
      absl::StrCat("cannot ", action, " ", path, ": ", std::strerror(error));
  return error == ENOENT ? absl::NotFoundError(message) : absl::UnavailableError(message);
}

absl::StatusOr<std::string> ReadRange(const std::string& path, int64_t from, size_t bytes) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    return FileError("open", path, errno);
  }
  std::string data(bytes, '\0');
  size_t done = 0;
  while (done < bytes) {
    const ssize_t count = pread(file.get(), data.data() + done, bytes - done,
                                static_cast<off_t>(from + static_cast<int64_t>(done)));
    if (count == 0) {
      break;
    }
    if (count > 0) {
      done += static_cast<size_t>(count);
    } else if (errno != EINTR) {
      return FileError("read", path, errno);
    }
  }
  data.resize(done);
  return data;
}

}  // namespace

RankLog::RankLog(std::string folder, const RankLogLimits& limits, std::vector<File> files)
    : folder_(std::move(folder)), limits_(limits), files_(std::move(files)) {}

absl::StatusOr<std::shared_ptr<RankLog>> RankLog::Open(const std::string& folder,
                                                       const RankLogLimits& limits) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  std::vector<File> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    File file;
    if (absl::EndsWith(name, kSuffix) &&
        absl::SimpleAtoi(name.substr(0, name.size() - std::strlen(kSuffix)), &file.start)) {
      file.size = static_cast<int64_t>(entry.file_size(error));
      files.push_back(file);
    }
  }
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot open the log folder ", folder, ": ", error.message()));
  }
  std::sort(files.begin(), files.end(),
            [](const File& a, const File& b) { return a.start < b.start; });
  return std::shared_ptr<RankLog>(new RankLog(folder, limits, std::move(files)));
}

std::string RankLog::Path(int64_t start) const {
  return absl::StrFormat("%s/%020d%s", folder_, start, kSuffix);
}

absl::Status RankLog::Rotate() {
  const int64_t start = end();
  const std::string path = Path(start);
  descriptor_ = UniqueFd(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!descriptor_.valid()) {
    return FileError("open", path, errno);
  }
  MutexLock lock(&mutex_);
  if (files_.empty() || files_.back().start != start) {
    // An empty file that an earlier agent left is there already.
    files_.push_back({.start = start, .size = 0});
  }
  while (files_.size() > static_cast<size_t>(std::max(1, limits_.files))) {
    std::remove(Path(files_.front().start).c_str());
    files_.erase(files_.begin());
  }
  return absl::OkStatus();
}

absl::Status RankLog::Append(absl::string_view lines) {
  while (!lines.empty()) {
    int64_t size = 0;
    {
      MutexLock lock(&mutex_);
      size = files_.empty() ? 0 : files_.back().size;
    }
    if (!descriptor_.valid() || size >= limits_.file_bytes) {
      LASP_RETURN_IF_ERROR(Rotate());
    }
    // A file ends with a line.
    const size_t newline = lines.find('\n', static_cast<size_t>(limits_.file_bytes));
    const absl::string_view part = lines.substr(0, newline == lines.npos ? newline : newline + 1);
    for (size_t done = 0; done < part.size();) {
      const ssize_t count = write(descriptor_.get(), part.data() + done, part.size() - done);
      if (count < 0 && errno == EINTR) {
        continue;
      }
      if (count < 0) {
        const int error = errno;
        // What is half written would be read as part of the next line.
        MutexLock lock(&mutex_);
        [[maybe_unused]] const int cut = ftruncate(descriptor_.get(), files_.back().size);
        return FileError("write", Path(files_.back().start), error);
      }
      done += static_cast<size_t>(count);
    }
    MutexLock lock(&mutex_);
    files_.back().size += static_cast<int64_t>(part.size());
    lines.remove_prefix(part.size());
  }
  return absl::OkStatus();
}

void RankLog::Close() {
  descriptor_ = UniqueFd();
  MutexLock lock(&mutex_);
  closed_ = true;
}

int64_t RankLog::end() const {
  MutexLock lock(&mutex_);
  return files_.empty() ? 0 : files_.back().start + files_.back().size;
}

bool RankLog::closed() const {
  MutexLock lock(&mutex_);
  return closed_;
}

bool RankLog::removed() const {
  std::error_code error;
  return closed() && !std::filesystem::exists(folder_, error) && !error;
}

absl::StatusOr<RankLog::Piece> RankLog::Read(int64_t offset, size_t max_bytes) const {
  File file;
  {
    MutexLock lock(&mutex_);
    const auto after =
        std::upper_bound(files_.begin(), files_.end(), offset,
                         [](int64_t at, const File& f) { return at < f.start + f.size; });
    if (after == files_.end()) {
      return Piece{.offset = offset, .data = {}};
    }
    file = *after;
  }
  const int64_t from = std::max(offset, file.start);
  std::string marker;
  if (from > offset) {
    marker = FormatLogLine(absl::StrCat("[", from - offset, " bytes of this log were dropped]"),
                           absl::Now());
    // The marker takes the last of the dropped bytes' place, so that no byte changes its number.
    marker.resize(static_cast<int64_t>(marker.size()) <= from - offset ? marker.size() : 0);
  }
  const auto bytes = static_cast<size_t>(
      std::min(static_cast<int64_t>(max_bytes - marker.size()), file.start + file.size - from));
  absl::StatusOr<std::string> data = ReadRange(Path(file.start), from - file.start, bytes);
  if (!data.ok()) {
    // Rotated away since: the next call finds the next file.
    return absl::IsNotFound(data.status()) ? absl::AbortedError(data.status().message())
                                           : data.status();
  }
  const size_t last_newline = data->rfind('\n');
  data->resize(last_newline == std::string::npos ? 0 : last_newline + 1);
  if (data->empty()) {
    // Half a line that a killed agent left at the end of its file.
    return Piece{.offset = from + static_cast<int64_t>(bytes), .data = {}};
  }
  return Piece{.offset = from - static_cast<int64_t>(marker.size()), .data = marker + *data};
}

}  // namespace lasp::worker
