#include "worker/data/open_file_limit.h"

#include <sys/resource.h>

#include <filesystem>
#include <iterator>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace lasp::worker {
namespace {

// Sockets to peers, logs, libraries.
constexpr int64_t kOthers = 512;

// Another corpus, for one. 0 where it cannot be told.
int64_t CountOpenFiles() {
  std::error_code error;
  const std::filesystem::directory_iterator files("/proc/self/fd", error);
  return error ? 0 : std::distance(begin(files), end(files));
}

}  // namespace

absl::Status AllowOpenFiles(int64_t count) {
  rlimit limit = {};
  const int64_t opened = CountOpenFiles();
  const auto wanted = static_cast<rlim_t>(opened + count + kOthers);
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
    return absl::OkStatus();
  }
  const rlim_t allowed = limit.rlim_max;
  limit.rlim_cur = wanted;
  if (wanted > allowed || setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the corpus has ", count, " files, beside ", opened,
                     " that are open, but this host allows ", allowed,
                     " open files a process: raise the limit (LimitNOFILE of the service, "
                     "ulimit -Hn), or join files"));
  }
  return absl::OkStatus();
}

}  // namespace lasp::worker
