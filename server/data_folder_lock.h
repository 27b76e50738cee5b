// One coordinator a data folder: a lock on a file that says who holds it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace lasp::server {

// Holds the folder until destroyed; the kernel releases the lock when the process dies, whatever
// the cause. Not thread-safe.
class DataFolderLock {
 public:
  // Creates the folder (mode 0700) where it is missing, one level deep. FAILED_PRECONDITION with
  // reason DATA_FOLDER_LOCKED, naming the folder and its holder, when another process has it.
  static absl::StatusOr<std::unique_ptr<DataFolderLock>> Acquire(const std::string& data_dir);

  ~DataFolderLock();
  DataFolderLock(const DataFolderLock&) = delete;
  DataFolderLock& operator=(const DataFolderLock&) = delete;

  // Adds where the holder serves to what a second process is told.
  absl::Status Publish(const std::string& api_address);

 private:
  DataFolderLock(std::string path, int descriptor)
      : path_(std::move(path)), descriptor_(descriptor) {}

  absl::Status Write(const std::string& text);

  const std::string path_;
  const int descriptor_;
};

}  // namespace lasp::server
