// A checkpoint's parameters, from the coordinator into a folder of the user's.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "client/session.h"
#include "lasp/v1/checkpoint.pb.h"
#include "proto/interchange/element_type.h"

namespace lasp::client {

struct ExportedFolder {
  int64_t bytes = 0;
  int files = 0;
};

// Whom the folder is for.
enum class FolderReader {
  kOwnPrograms,  // in a layout of our own where Hugging Face has none for the model
  kAnyone,
};

// Writes `folder`, in Hugging Face's layout, whole or not at all. Shows the progress on a terminal;
// goes on where it was when the connection breaks. ALREADY_EXISTS where the folder holds something;
// FAILED_PRECONDITION where it is for anyone and Hugging Face has no layout for the model;
// CANCELLED after Ctrl-C; errors of OwnDiskError where it cannot be written.
absl::StatusOr<ExportedFolder> DownloadCheckpoint(const lasp::v1::Checkpoint& checkpoint,
                                                  const std::string& folder, FolderReader reader,
                                                  ElementType type, int64_t max_file_bytes,
                                                  Session* session);

}  // namespace lasp::client
