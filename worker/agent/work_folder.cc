#include "worker/agent/work_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "proto/rpc/resource_name.h"

namespace lasp::worker {
namespace {

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// A reader sees the old content or the new, never half of one.
absl::Status Replace(const std::string& path, const std::string& content) {
  const std::string next = path + ".new";
  std::ofstream file(next, std::ios::trunc);
  file << content;
  file.close();
  std::error_code error;
  if (file) {
    std::filesystem::rename(next, path, error);
  }
  if (!file || error) {
    return absl::UnavailableError(absl::StrCat("cannot write ", path));
  }
  return absl::OkStatus();
}

}  // namespace

std::string HostName() {
  char name[256] = {};
  if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0') {
    return "localhost";
  }
  return name;
}

absl::StatusOr<std::unique_ptr<WorkFolder>> WorkFolder::Open(const std::string& path) {
  std::error_code error;
  for (const char* part : {"", "/ranks", "/logs"}) {
    std::filesystem::create_directories(path + part, error);
    if (error) {
      return absl::UnavailableError(
          absl::StrCat("cannot make the work folder ", path, part, ": ", error.message()));
    }
  }
  const std::string lock_path = path + "/lock";
  UniqueFd lock(open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!lock.valid()) {
    return absl::UnavailableError(
        absl::StrCat("cannot open ", lock_path, ": ", std::strerror(errno)));
  }
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the work folder ", path, " is in use by process ", FirstLine(lock_path),
                     "; give each agent on a host its own --work_dir"));
  }
  const std::string holder = absl::StrCat(getpid(), "\n");
  if (ftruncate(lock.get(), 0) != 0 ||
      write(lock.get(), holder.data(), holder.size()) != static_cast<ssize_t>(holder.size())) {
    return absl::UnavailableError(
        absl::StrCat("cannot write ", lock_path, ": ", std::strerror(errno)));
  }
  return std::unique_ptr<WorkFolder>(new WorkFolder(path, std::move(lock)));
}

absl::StatusOr<std::string> WorkFolder::WorkerId(const std::string& requested) const {
  const std::string path = path_ + "/worker_id";
  const std::string kept = FirstLine(path);
  std::string id = !requested.empty() ? requested : !kept.empty() ? kept : HostName();
  if (!IsValidWorkerId(id)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", id, "' is not a worker id: want letters, digits, '.', '_' and '-'"));
  }
  if (id == kept) {
    return id;
  }
  if (!kept.empty()) {
    LASP_LOG(kWarning, "the worker's id has changed", {{"before", kept}, {"now", id}});
  }
  absl::Status written = Replace(path, id + "\n");
  if (!written.ok()) {
    return written;
  }
  return id;
}

}  // namespace lasp::worker
