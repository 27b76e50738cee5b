#include "server/sqlite_job_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "server/sqlite_writer.h"

namespace lasp::server {
namespace {

// Transactions in one commit: bounds how long the first of them waits for the last.
constexpr size_t kMaxBatch = 1'024;
// After a commit those whom it answered come again. Where that takes them less time than a commit,
// waiting for them nearly doubles what the next one carries, instead of syncing for the few who
// came meanwhile. A wait ends when most of what can be expected has come; where it ends without,
// twice in a row, the next commits do without.
constexpr double kGatherShare = 0.6;
constexpr absl::Duration kMaxGather = absl::Milliseconds(6);
constexpr double kGatheredShare = 0.8;
constexpr int kMaxMisses = 2;
constexpr int kCommitsWithoutGather = 32;

// Tells the observer how long a read took, the wait for its connection included.
template <typename Read>
auto Timed(CoreObserver* observer, const Read& read) {
  const absl::Duration start = SystemClock().Monotonic();
  auto result = read();
  observer->OnRead(SystemClock().Monotonic() - start);
  return result;
}

}  // namespace

SqliteJobStore::SqliteJobStore(const Options& options, CoreObserver* observer)
    : options_(options), observer_(observer) {}

absl::StatusOr<std::unique_ptr<SqliteJobStore>> SqliteJobStore::Open(const Options& options,
                                                                     CoreObserver* observer) {
  auto store = std::unique_ptr<SqliteJobStore>(new SqliteJobStore(options, observer));
  LASP_RETURN_IF_ERROR(store->OpenConnections());
  store->thread_ = std::thread([raw = store.get()] { raw->Run(); });
  return store;
}

absl::Status SqliteJobStore::OpenConnections() {
  LASP_ASSIGN_OR_RETURN(
      writer_, SqliteWriter::Open(options_.path, options_.vfs, options_.max_steps_per_job));
  LASP_ASSIGN_OR_RETURN(uuid_, writer_->ReadUuid());
  for (auto& reader : readers_) {
    LASP_ASSIGN_OR_RETURN(reader, SqliteReader::Open(options_.path, options_.vfs));
  }
  LASP_ASSIGN_OR_RETURN(audit_reader_, SqliteAuditReader::Open(options_.path, options_.vfs));
  return absl::OkStatus();
}

SqliteJobStore::~SqliteJobStore() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  wake_.NotifyAll();
  if (thread_.joinable()) {
    thread_.join();
  }
}

absl::StatusOr<StoreContents> SqliteJobStore::Load() { return writer_->Load(); }

void SqliteJobStore::Commit(std::vector<Mutation> mutations, std::function<void()> committed) {
  ++pending_;
  bool wanted = false;
  {
    MutexLock lock(&mutex_);
    const bool gathered = queued_rows_ >= awaited_rows_;
    queued_rows_ += mutations.size();
    wanted = queue_.empty() || (!gathered && queued_rows_ >= awaited_rows_);
    queue_.push_back({std::move(mutations), std::move(committed)});
  }
  if (wanted) {
    wake_.Notify();
  }
}

absl::Status SqliteJobStore::health() const {
  MutexLock lock(&mutex_);
  return health_;
}

void SqliteJobStore::SetHealth(const absl::Status& status) {
  bool changed = false;
  {
    MutexLock lock(&mutex_);
    changed = health_.ok() != status.ok();
    health_ = status;
  }
  if (!changed) {
    return;
  }
  if (status.ok()) {
    LASP_LOG(kInfo, "the store can be written again");
  } else {
    LASP_LOG(kError, "the store cannot be written; nothing is decided until it can",
             {{"path", options_.path}, {"error", status.message()}});
  }
  observer_->OnStoreHealth(status.ok());
}

void SqliteJobStore::Run() {
  const Clock& clock = SystemClock();
  absl::Duration gather_until = -absl::InfiniteDuration();
  while (true) {
    std::deque<Transaction> batch;
    size_t rows = 0;
    {
      MutexLock lock(&mutex_);
      while (queue_.empty() && !stopping_) {
        wake_.Wait(&mutex_);
      }
      Gather(gather_until);
      if (queue_.empty()) {
        return;
      }
      if (queue_.size() <= kMaxBatch) {
        batch.swap(queue_);
      } else {
        const auto end = queue_.begin() + kMaxBatch;
        batch.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(end));
        queue_.erase(queue_.begin(), end);
      }
      for (const Transaction& transaction : batch) {
        rows += transaction.mutations.size();
      }
      queued_rows_ -= rows;
    }
    const absl::Duration start = clock.Monotonic();
    if (!CommitBatch(batch)) {
      return;
    }
    const absl::Duration end = clock.Monotonic();
    gather_until = end + std::min((end - start) * kGatherShare, kMaxGather);
    {
      MutexLock lock(&mutex_);
      awaited_rows_ =
          static_cast<size_t>(kGatheredShare * static_cast<double>(queued_rows_ + rows));
    }
    for (Transaction& transaction : batch) {
      if (transaction.committed) {
        transaction.committed();
      }
      --pending_;
    }
  }
}

void SqliteJobStore::Gather(absl::Duration until) {
  const Clock& clock = SystemClock();
  if (clock.Monotonic() >= until) {
    return;
  }
  if (commits_without_gather_ > 0) {
    --commits_without_gather_;
    return;
  }
  while (queued_rows_ < awaited_rows_ && !stopping_) {
    const absl::Duration now = clock.Monotonic();
    if (now >= until) {
      if (++gather_misses_ == kMaxMisses) {
        gather_misses_ = 0;
        commits_without_gather_ = kCommitsWithoutGather;
      }
      return;
    }
    wake_.WaitWithTimeout(&mutex_, until - now);
  }
  gather_misses_ = 0;
}

bool SqliteJobStore::CommitBatch(const std::deque<Transaction>& batch) {
  absl::Duration delay = options_.retry_delay;
  while (true) {
    const absl::Duration start = SystemClock().Monotonic();
    size_t mutations = 0;
    absl::Status status = writer_->Begin();
    for (const Transaction& transaction : batch) {
      for (const Mutation& mutation : transaction.mutations) {
        if (status.ok()) {
          status = writer_->Apply(mutation);
          ++mutations;
        }
      }
    }
    if (status.ok()) {
      status = writer_->Commit();
    }
    SetHealth(status);
    if (status.ok()) {
      observer_->OnCommit(mutations, SystemClock().Monotonic() - start);
      return true;
    }
    writer_->Rollback();
    MutexLock lock(&mutex_);
    if (stopping_) {
      LASP_LOG(kError, "stopping with transactions that could not be written",
               {{"count", batch.size() + queue_.size()}});
      return false;
    }
    wake_.WaitWithTimeout(&mutex_, delay);
    delay = std::min(delay * 2, options_.max_retry_delay);
  }
}

SqliteReader& SqliteJobStore::reader() const {
  return *readers_[next_reader_.fetch_add(1, std::memory_order_relaxed) % readers_.size()];
}

absl::StatusOr<std::vector<lasp::v1::Transition>> SqliteJobStore::Transitions(int64_t job_id,
                                                                              int limit) const {
  return Timed(observer_, [&] { return reader().Transitions(job_id, limit); });
}

absl::StatusOr<std::vector<StoredTransition>> SqliteJobStore::TransitionsBefore(int64_t job_id,
                                                                                int64_t before,
                                                                                int limit) const {
  return Timed(observer_, [&] { return reader().TransitionsBefore(job_id, before, limit); });
}

absl::StatusOr<std::vector<StoredTransition>> SqliteJobStore::LatestTransitions(int limit) const {
  return Timed(observer_, [&] { return reader().LatestTransitions(limit); });
}

absl::StatusOr<int64_t> SqliteJobStore::CountSteps(int64_t job_id, int64_t from_step,
                                                   int64_t to_step) const {
  return Timed(observer_, [&] { return reader().CountSteps(job_id, from_step, to_step); });
}

absl::StatusOr<std::vector<lasp::v1::StepMetrics>> SqliteJobStore::ReadSteps(int64_t job_id,
                                                                             int64_t from_step,
                                                                             int64_t to_step,
                                                                             int64_t stride) const {
  return Timed(observer_, [&] { return reader().ReadSteps(job_id, from_step, to_step, stride); });
}

absl::StatusOr<std::vector<lasp::v1::StepMetrics>> SqliteJobStore::ReadGenerationSteps(
    int64_t job_id, int64_t generation, int64_t after_step, int limit) const {
  return Timed(observer_,
               [&] { return reader().ReadGenerationSteps(job_id, generation, after_step, limit); });
}

absl::StatusOr<int64_t> SqliteJobStore::NextGeneration(int64_t job_id, int64_t generation) const {
  return Timed(observer_, [&] { return reader().NextGeneration(job_id, generation); });
}

absl::StatusOr<AuditPage> SqliteJobStore::ReadAudit(const AuditQuery& query, int limit) const {
  return Timed(observer_, [&] { return audit_reader_->Read(query, limit); });
}

}  // namespace lasp::server
