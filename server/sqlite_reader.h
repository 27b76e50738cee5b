// The queries of the store, on a read-only connection of their own: they see what is committed and
// never wait for the writer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "lasp/v1/step_metrics.pb.h"
#include "lasp/v1/training_job.pb.h"
#include "proto/rpc/mutex.h"
#include "server/job_store.h"
#include "server/sqlite_database.h"

namespace lasp::server {

// Thread-safe; one query at a time.
class SqliteReader {
 public:
  static absl::StatusOr<std::unique_ptr<SqliteReader>> Open(const std::string& path,
                                                            const std::string& vfs);

  // As in JobStore.
  absl::StatusOr<std::vector<lasp::v1::Transition>> Transitions(int64_t job_id, int limit);
  absl::StatusOr<std::vector<StoredTransition>> TransitionsBefore(int64_t job_id, int64_t before,
                                                                  int limit);
  absl::StatusOr<std::vector<StoredTransition>> LatestTransitions(int limit);
  absl::StatusOr<int64_t> CountSteps(int64_t job_id, int64_t from_step, int64_t to_step);
  absl::StatusOr<std::vector<lasp::v1::StepMetrics>> ReadSteps(int64_t job_id, int64_t from_step,
                                                               int64_t to_step, int64_t stride);
  absl::StatusOr<std::vector<lasp::v1::StepMetrics>> ReadGenerationSteps(int64_t job_id,
                                                                         int64_t generation,
                                                                         int64_t after_step,
                                                                         int limit);
  absl::StatusOr<int64_t> NextGeneration(int64_t job_id, int64_t generation);

 private:
  explicit SqliteReader(std::string path) : path_(std::move(path)) {}

  // All rows of `statement`, which is bound: job, revision, transition.
  absl::StatusOr<std::vector<StoredTransition>> StoredTransitions(SqliteStatement* statement)
      REQUIRES_LOCK(mutex_);

  const std::string path_;
  Mutex mutex_;
  SqliteDatabase database_ GUARDED_BY(mutex_);
  SqliteStatement transitions_ GUARDED_BY(mutex_);
  SqliteStatement transitions_before_ GUARDED_BY(mutex_);
  SqliteStatement latest_transitions_ GUARDED_BY(mutex_);
  SqliteStatement count_steps_ GUARDED_BY(mutex_);
  SqliteStatement read_steps_ GUARDED_BY(mutex_);
  SqliteStatement generation_steps_ GUARDED_BY(mutex_);
  SqliteStatement next_generation_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
