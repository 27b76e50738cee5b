// The folder of the store's backups: `{id}.sqlite` with `{id}.sqlite.sha256`, which
// `sha256sum --check` reads and which is written last: a copy without it is not done.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"

namespace lasp::server {

struct StoreBackup {
  // Its time, and what tells it from others of that second: `20261122T091500Z-3fk2`.
  std::string id;
  std::string path;
  absl::Time create_time;
  // What it was made for; empty for one that was asked for.
  std::string note;
  int64_t byte_count = 0;
  std::string sha256;
};

// Thread-safe; makes one backup at a time.
class BackupFolder {
 public:
  struct Options {
    // Made where it is missing, one level deep; only its owner may look into it.
    std::string folder;
    std::string store_path;
    // Beyond it the oldest go.
    int max_backups = 7;
    bool wanted = false;
  };

  // `clock` outlives it.
  BackupFolder(Options options, const Clock* clock);

  // Copies the store as it is now and reads the copy back whole. Blocks for as long. `note` goes
  // into the id. FAILED_PRECONDITION (BACKUP_RUNNING), RESOURCE_EXHAUSTED (NO_ROOM), UNAVAILABLE
  // after Stop and where the folder cannot be written.
  absl::StatusOr<StoreBackup> Create(absl::string_view note = "");

  // Newest first.
  absl::StatusOr<std::vector<StoreBackup>> List() const;

  // When the newest whole backup that was asked for was made, one without a note; UnixEpoch where
  // there is none. Does not look at the disk: what was removed by others counts until a restart.
  absl::Time newest() const { return absl::FromUnixMicros(newest_unix_micros_); }

  // Whether the folder was named for backups, which are to be made then.
  bool is_wanted() const { return options_.wanted; }

  // Ends a backup that is being made, and makes no more.
  void Stop() { stop_ = true; }

 private:
  absl::StatusOr<StoreBackup> CreateAlone(absl::string_view note);
  absl::Status CheckRoom() const;
  void RemoveLeftovers() const;
  void RemoveOldest() const;

  const Options options_;
  const Clock* const clock_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> running_{false};
  std::atomic<int64_t> newest_unix_micros_{0};
};

}  // namespace lasp::server
