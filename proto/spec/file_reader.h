// Bounded reads of a file whose size is known, for headers.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lasp {

// Reads up to `count` bytes at `offset`: fewer only where the file ends before. The code of what
// the system says where it cannot be read.
absl::StatusOr<int64_t> ReadUpTo(int fd, int64_t offset, int64_t count, void* out);

// Refers to a descriptor it does not own. Thread-safe.
class FileReader {
 public:
  FileReader(int fd, std::string path, int64_t size)
      : fd_(fd), path_(std::move(path)), size_(size) {}

  const std::string& path() const { return path_; }

  int64_t size() const { return size_; }

  // Reads exactly `count` bytes at `offset`. DATA_LOSS where the file ends before.
  absl::Status ReadAt(int64_t offset, int64_t count, void* out) const;

 private:
  int fd_;
  std::string path_;
  int64_t size_;
};

}  // namespace lasp
