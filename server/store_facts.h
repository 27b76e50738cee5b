// What a file that should be a store is, told without changing it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/sqlite_schema.h"

namespace lasp::server {

struct StoreFacts {
  SchemaState schema;
  std::string uuid;
  int64_t jobs = 0;
  // Of a backup: the moment it holds. InfinitePast for other files.
  absl::Time backup_time = absl::InfinitePast();
};

// Reads all of the file. NOT_FOUND where there is none; INVALID_ARGUMENT (NOT_A_STORE) for a file
// that is something else; FAILED_PRECONDITION (SCHEMA_TOO_NEW) for a store of a later release;
// DATA_LOSS (STORE_DAMAGED) for a damaged one.
absl::StatusOr<StoreFacts> ReadStoreFacts(const std::string& path);

}  // namespace lasp::server
