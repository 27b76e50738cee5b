#include "client/text_file.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"

namespace lasp::client {

absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t max_bytes) {
  const bool standard_input = path == "-";
  const std::unique_ptr<FILE, int (*)(FILE*)> opened(
      standard_input ? nullptr : std::fopen(path.c_str(), "re"),
      [](FILE* file) { return file == nullptr ? 0 : std::fclose(file); });
  FILE* const file = standard_input ? stdin : opened.get();
  if (file == nullptr) {
    return absl::ErrnoToStatus(errno, path);
  }
  struct stat status = {};
  if (fstat(fileno(file), &status) == 0 && S_ISDIR(status.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is a folder, not a file"));
  }
  std::string text;
  char buffer[16384];
  size_t count = 0;
  do {
    count = std::fread(buffer, 1, sizeof(buffer), file);
    text.append(buffer, count);
    if (text.size() > max_bytes) {
      return absl::OutOfRangeError(absl::StrCat(path, ": larger than ", max_bytes, " bytes"));
    }
  } while (count == sizeof(buffer));
  if (std::ferror(file) != 0) {
    return absl::ErrnoToStatus(errno, path);
  }
  return text;
}

}  // namespace lasp::client
