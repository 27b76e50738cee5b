#include "worker/data/open_file_limit.h"

#include <sys/resource.h>

#include "absl/strings/str_cat.h"

namespace lasp::worker {
namespace {

// Sockets to peers, logs, libraries.
constexpr int64_t kOthers = 512;

}  // namespace

absl::Status AllowOpenFiles(int64_t count) {
  rlimit limit = {};
  const auto wanted = static_cast<rlim_t>(count + kOthers);
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
    return absl::OkStatus();
  }
  const rlim_t allowed = limit.rlim_max;
  limit.rlim_cur = wanted;
  if (wanted > allowed || setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the corpus has ", count, " files, but this host allows ", allowed,
                     " open files a process: raise the limit (LimitNOFILE of the service, "
                     "ulimit -Hn), or join files"));
  }
  return absl::OkStatus();
}

}  // namespace lasp::worker
