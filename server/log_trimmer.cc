#include "server/log_trimmer.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "proto/rpc/log.h"

namespace lasp::server {
namespace {

namespace fs = std::filesystem;

struct Segment {
  fs::file_time_type written;
  LogKey key;
  int64_t start = 0;
  int64_t bytes = 0;
};

// The number in a name such as "gen-3"; false for another name.
template <typename Number>
bool ParseNumbered(const fs::path& path, absl::string_view prefix, Number* number) {
  const std::string name = path.filename().string();
  absl::string_view digits = name;
  return absl::ConsumePrefix(&digits, prefix) && absl::SimpleAtoi(digits, number);
}

void FindSegments(const fs::path& rank_folder, const LogKey& key, std::vector<Segment>* found) {
  std::error_code error;
  for (const auto& file : fs::directory_iterator(rank_folder, error)) {
    Segment segment{.written = {}, .key = key};
    std::error_code gone;
    segment.written = file.last_write_time(gone);
    segment.bytes = gone ? 0 : static_cast<int64_t>(file.file_size(gone));
    if (!gone && absl::SimpleAtoi(file.path().stem().string(), &segment.start)) {
      found->push_back(std::move(segment));
    }
  }
}

std::vector<Segment> FindAll(const std::string& directory) {
  std::vector<Segment> found;
  std::error_code error;
  for (const auto& job : fs::directory_iterator(directory, error)) {
    for (const auto& generation : fs::directory_iterator(job.path(), error)) {
      LogKey key{.uid = job.path().filename().string()};
      if (!ParseNumbered(generation.path(), "gen-", &key.generation)) {
        continue;
      }
      for (const auto& rank : fs::directory_iterator(generation.path(), error)) {
        if (ParseNumbered(rank.path(), "rank-", &key.rank)) {
          FindSegments(rank.path(), key, &found);
        }
      }
    }
  }
  return found;
}

}  // namespace

void TrimLogs(const std::string& directory, int64_t max_bytes, LogStore* logs) {
  std::vector<Segment> segments = FindAll(directory);
  int64_t total = 0;
  for (const Segment& segment : segments) {
    total += segment.bytes;
  }
  if (total <= max_bytes) {
    return;
  }
  std::sort(segments.begin(), segments.end(), [](const Segment& a, const Segment& b) {
    return std::tie(a.written, a.start) < std::tie(b.written, b.start);
  });
  const int64_t before = total;
  int64_t removed = 0;
  for (const Segment& segment : segments) {
    if (total <= max_bytes) {
      break;
    }
    logs->RemoveSegment(segment.key, segment.start);
    total -= segment.bytes;
    ++removed;
  }
  LASP_LOG(kWarning, "removed the oldest logs: together they were too large",
           {{"bytes_before", before}, {"bytes", total}, {"segments", removed}});
}

}  // namespace lasp::server
