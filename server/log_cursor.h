// Where a reader of a job's logs stands: an offset for each rank of each generation. Travels as an
// opaque resume token.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lasp::server {

struct LogCursor {
  // Generation and rank.
  using Key = std::pair<int64_t, int>;

  // Offsets read up to; a rank that is not there has not been read.
  std::map<Key, int64_t> offsets;

  // `uid` is the job's: a token does not fit another job.
  std::string ToToken(absl::string_view uid) const;
  // INVALID_ARGUMENT (reason INVALID_RESUME_TOKEN) for what is no token of this job's logs.
  static absl::StatusOr<LogCursor> FromToken(absl::string_view token, absl::string_view uid);
};

}  // namespace lasp::server
