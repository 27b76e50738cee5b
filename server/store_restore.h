// Puts a backup in the place of a coordinator's store, while no coordinator runs on it.
//
// What a backup does not know of has happened all the same: generations were started, ranks of them
// may run, agents hold reports of them, users hold tokens that name places in the lost history. So
// the restored store is another one, with another uuid: page and resume tokens of before are
// refused. And its generations go on from a number that no earlier history can have reached, the
// time of the restoration in seconds: what comes of an older one is stale, and its ranks are
// stopped. Checkpoints that were committed since are not lost: the next start finds them on the
// disk.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace lasp::server {

struct RestoreRequest {
  // Locked by the caller.
  std::string data_dir;
  // The backup's file.
  std::string backup;
  // Whether a store that is there may be put aside.
  bool replace = false;
};

struct RestoreResult {
  // The moment that the backup holds; InfinitePast where it does not say.
  absl::Time backup_time;
  int64_t jobs = 0;
  // Where the store that was there lies now; empty where there was none.
  std::string put_aside;
};

// Errors of ReadStoreFacts for a backup that cannot be used; DATA_LOSS (DIGEST_MISMATCH) for one
// that is not what its `.sha256` says; ALREADY_EXISTS (STORE_EXISTS) where there is a store and
// `replace` is not set. After an error the store is what it was.
absl::StatusOr<RestoreResult> RestoreStore(const RestoreRequest& request, absl::Time now);

}  // namespace lasp::server
