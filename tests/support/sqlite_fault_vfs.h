// A SQLite VFS over the system's own that behaves like a worse disk: slow to sync, failing, or
// forgetting what was not synced when the process dies.
#pragma once

#include <atomic>
#include <cstdint>

namespace lasp::testing {

// How the disk behaves. Thread-safe; must live as long as the process.
struct DiskFaults {
  // Added to every sync.
  std::atomic<int64_t> sync_delay_micros{0};
  // Writes and syncs fail as on a full disk.
  std::atomic<bool> full{false};
  // Written bytes reach the file only with a sync: a process that is killed loses the rest, as a
  // machine without power does. Set before the VFS is used.
  std::atomic<bool> drop_unsynced{false};
  // Syncs so far.
  std::atomic<int64_t> sync_count{0};
};

// Registers the VFS under `name`, which must be a literal. Once a name.
void RegisterFaultVfs(const char* name, DiskFaults* faults);

}  // namespace lasp::testing
