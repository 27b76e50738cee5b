// The store on SQLite: write-ahead log, every commit synced, one writer thread that commits
// whatever has gathered while it was busy in one transaction.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "proto/rpc/mutex.h"
#include "server/core_observer.h"
#include "server/job_store.h"
#include "server/sqlite_audit_reader.h"
#include "server/sqlite_database.h"
#include "server/sqlite_reader.h"

namespace lasp::server {

class SqliteWriter;

class SqliteJobStore final : public JobStore {
 public:
  struct Options {
    std::string path;
    // Empty for SQLite's own.
    std::string vfs;
    int64_t max_steps_per_job = 10'000;
    // A failed transaction is tried again after this long, doubling up to the maximum.
    absl::Duration retry_delay = absl::Milliseconds(100);
    absl::Duration max_retry_delay = absl::Seconds(2);
  };

  // Opens or creates the store and checks it. Errors as in sqlite_schema.h; UNAVAILABLE where the
  // file cannot be opened. `observer` must outlive it.
  static absl::StatusOr<std::unique_ptr<SqliteJobStore>> Open(const Options& options,
                                                              CoreObserver* observer);
  // Writes what is queued, unless the disk fails.
  ~SqliteJobStore() override;

  const std::string& uuid() const override { return uuid_; }

  absl::StatusOr<StoreContents> Load() override;
  void Commit(std::vector<Mutation> mutations, std::function<void()> committed) override;

  size_t pending() const override { return pending_.load(); }

  absl::Status health() const override;

  absl::StatusOr<std::vector<lasp::v1::Transition>> Transitions(int64_t job_id,
                                                                int limit) const override;
  absl::StatusOr<std::vector<StoredTransition>> TransitionsBefore(int64_t job_id, int64_t before,
                                                                  int limit) const override;
  absl::StatusOr<std::vector<StoredTransition>> LatestTransitions(int limit) const override;
  absl::StatusOr<int64_t> CountSteps(int64_t job_id, int64_t from_step,
                                     int64_t to_step) const override;
  absl::StatusOr<std::vector<lasp::v1::StepMetrics>> ReadSteps(int64_t job_id, int64_t from_step,
                                                               int64_t to_step,
                                                               int64_t stride) const override;
  absl::StatusOr<std::vector<lasp::v1::StepMetrics>> ReadGenerationSteps(int64_t job_id,
                                                                         int64_t generation,
                                                                         int64_t after_step,
                                                                         int limit) const override;
  absl::StatusOr<int64_t> NextGeneration(int64_t job_id, int64_t generation) const override;
  absl::StatusOr<AuditPage> ReadAudit(const AuditQuery& query, int limit) const override;

 private:
  struct Transaction {
    std::vector<Mutation> mutations;
    std::function<void()> committed;
  };

  SqliteJobStore(const Options& options, CoreObserver* observer);

  absl::Status OpenConnections();
  void Run();
  // Until it is durable; false when the store is being destroyed and the disk does not work.
  bool CommitBatch(const std::deque<Transaction>& batch);
  // Waits for more to commit, until then at the latest.
  void Gather(absl::Duration until) REQUIRES_LOCK(mutex_);
  void SetHealth(const absl::Status& status);
  // A read connection that is free, or the next in turn.
  SqliteReader& reader() const;

  const Options options_;
  CoreObserver* const observer_;
  std::string uuid_;
  // Before the thread runs, Load; then the thread's own.
  std::unique_ptr<SqliteWriter> writer_;
  mutable std::array<std::unique_ptr<SqliteReader>, 2> readers_;
  std::unique_ptr<SqliteAuditReader> audit_reader_;
  mutable std::atomic<size_t> next_reader_{0};
  std::atomic<size_t> pending_{0};
  mutable Mutex mutex_;
  CondVar wake_;
  std::deque<Transaction> queue_ GUARDED_BY(mutex_);
  // Of all transactions of the queue, and how many Gather waits for.
  size_t queued_rows_ GUARDED_BY(mutex_) = 0;
  size_t awaited_rows_ GUARDED_BY(mutex_) = 0;
  int gather_misses_ GUARDED_BY(mutex_) = 0;
  int commits_without_gather_ GUARDED_BY(mutex_) = 0;
  // The message of the last failure; empty while all is well.
  absl::Status health_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace lasp::server
