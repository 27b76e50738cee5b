// The store: what goes in comes out, and a failing disk loses nothing.
#include "server/sqlite_job_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "server/metrics_hub.h"
#include "tests/server/core/store_fixture.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using SqliteJobStoreTest = StoreFixture;
using ::lasp::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(SqliteJobStoreTest, WhatGoesInComesOut) {
  LASP_ASSERT_OK(Open());
  const std::string uuid = store_->uuid();
  const int64_t base = store_->Load().value().base_revision;
  AddTransition transition{.job_id = 1, .revision = 11, .transition = {}};
  transition.transition.set_reason("SUBMITTED");
  Commit({PutJob{MakeJob(1, lasp::v1::TrainingJob::STATE_RUNNING), true}, transition,
          PutRankExit{1, 2, 3, 137}, PutRankExit{1, 1, 0, 0}, PutGemmRecord{1, "first"},
          PutGemmRecord{1, "chosen"}, PutWorker{"w", "incarnation", {.cpu = 3, .gpu = 4}, true},
          PutWorker{"gone", "i", {.cpu = 1, .gpu = 0}, false}, DeleteWorker{"gone"},
          PutRequest{"create p 1", 0xfedcba9876543210U, "job-1", "uid-1",
                     absl::FromUnixSeconds(2'000'000'000)},
          PutRequest{"create p 2", 1, "job-1", "uid-1", absl::FromUnixSeconds(1'000)},
          ExpireRequests{absl::FromUnixSeconds(1'000)}});
  Commit({PutJob{MakeJob(2, lasp::v1::TrainingJob::STATE_QUEUED), true},
          PutJob{MakeJob(3, lasp::v1::TrainingJob::STATE_FAILED), true}});
  Commit({DeleteJob{3, "job-3", 77}, DeleteJob{2, "job-2", 78}, CompactTombstones{77}});

  LASP_ASSERT_OK(Open());
  EXPECT_EQ(store_->uuid(), uuid);
  const StoreContents contents = store_->Load().value();
  EXPECT_GT(contents.base_revision, base + (int64_t{1} << 30));
  EXPECT_EQ(contents.last_job_id, 3) << "ids of deleted jobs are not used again";
  ASSERT_EQ(contents.jobs.size(), 1);
  EXPECT_EQ(contents.jobs[0].view->job.name(), "job-1");
  EXPECT_EQ(contents.jobs[0].view->ToProto().spec().max_steps(), 1);
  EXPECT_EQ(contents.jobs[0].view->revision, 10);
  ASSERT_EQ(contents.jobs[0].exits.size(), 1) << "of the current generation only";
  EXPECT_EQ(contents.jobs[0].exits[0].rank, 3);
  EXPECT_EQ(contents.jobs[0].exits[0].exit_code, 137);
  EXPECT_EQ(contents.jobs[0].gemm_record, "chosen");
  ASSERT_EQ(contents.workers.size(), 1);
  EXPECT_TRUE(contents.workers[0].drain_requested);
  EXPECT_EQ(contents.workers[0].slots.cpu, 3);
  EXPECT_EQ(contents.workers[0].slots.gpu, 4);
  ASSERT_EQ(contents.requests.size(), 1);
  EXPECT_EQ(contents.requests[0].fingerprint, 0xfedcba9876543210U);
  ASSERT_EQ(contents.tombstones.size(), 1);
  EXPECT_EQ(contents.tombstones[0].name, "job-2");
  EXPECT_EQ(contents.compacted_revision, 77);
  EXPECT_EQ(store_->Transitions(1, 10).value().at(0).reason(), "SUBMITTED");
}

TEST_F(SqliteJobStoreTest, CheckpointsAndTheShardsOfThoseThatAreWritten) {
  LASP_ASSERT_OK(Open());
  const auto checkpoint = [](int64_t step, int64_t generation, lasp::v1::Checkpoint::State state) {
    PutCheckpoint put{.job_id = 1, .checkpoint = {}};
    put.checkpoint.set_step(step);
    put.checkpoint.set_generation(generation);
    put.checkpoint.set_state(state);
    return put;
  };
  const auto shard = [](int64_t step, int rank) {
    AddCheckpointShard add{.job_id = 1, .step = step, .generation = 1, .rank = rank, .shard = {}};
    add.shard.mutable_fence()->set_rank(rank);
    return add;
  };
  Commit({PutJob{MakeJob(1, lasp::v1::TrainingJob::STATE_RUNNING), true},
          checkpoint(20, 1, lasp::v1::Checkpoint::STATE_WRITING), shard(20, 1), shard(20, 0),
          checkpoint(10, 1, lasp::v1::Checkpoint::STATE_WRITING), shard(10, 0),
          checkpoint(10, 1, lasp::v1::Checkpoint::STATE_COMMITTED),
          checkpoint(5, 1, lasp::v1::Checkpoint::STATE_FAILED), DeleteCheckpoint{1, 5, 1}});
  LASP_ASSERT_OK(Open());
  const auto stored = store_->Load().value().jobs.at(0).checkpoints;
  ASSERT_EQ(stored.size(), 2);
  EXPECT_EQ(stored[0].checkpoint.step(), 10);
  EXPECT_EQ(stored[0].checkpoint.state(), lasp::v1::Checkpoint::STATE_COMMITTED);
  EXPECT_TRUE(stored[0].shards.empty());
  ASSERT_EQ(stored[1].shards.size(), 2);
  EXPECT_EQ(stored[1].shards[1].fence().rank(), 1);
  Commit({DeleteJob{1, "job-1", 77}});
  store_ = nullptr;
  auto database = SqliteDatabase::Open(options_.path, "", SqliteDatabase::Mode::kReadWrite).value();
  for (const char* table : {"checkpoints", "checkpoint_shards", "worker_failures"}) {
    EXPECT_EQ(database.QueryInteger(absl::StrCat("SELECT COUNT(*) FROM ", table)).value(), 0)
        << table;
  }
}

TEST_F(SqliteJobStoreTest, TheLatestTransitionsComeInOrder) {
  LASP_ASSERT_OK(Open());
  for (int i = 1; i <= 5; ++i) {
    AddTransition row{.job_id = 1, .revision = i, .transition = {}};
    row.transition.set_reason(std::to_string(i));
    Commit({row});
  }
  const auto transitions = store_->Transitions(1, 3).value();
  std::vector<std::string> reasons;
  reasons.reserve(transitions.size());
  for (const auto& transition : transitions) {
    reasons.push_back(transition.reason());
  }
  EXPECT_THAT(reasons, ElementsAre("3", "4", "5"));
}

TEST_F(SqliteJobStoreTest, WhatIsStoredOfAJobGoesWithIt) {
  LASP_ASSERT_OK(Open());
  Commit({PutJob{MakeJob(1, lasp::v1::TrainingJob::STATE_FAILED), true}, PutRankExit{1, 2, 0, 1},
          PutGemmRecord{1, "chosen"}});
  Commit({DeleteJob{1, "job-1", 77}});
  store_ = nullptr;
  auto database = SqliteDatabase::Open(options_.path, "", SqliteDatabase::Mode::kReadWrite).value();
  for (const char* table : {"jobs", "rank_exits", "gemm_records"}) {
    EXPECT_EQ(database.QueryInteger(absl::StrCat("SELECT COUNT(*) FROM ", table)).value(), 0)
        << table;
  }
}

TEST_F(SqliteJobStoreTest, AStoreFromBeforeGpusIsBroughtUp) {
  LASP_ASSERT_OK(Open());
  Commit({PutJob{MakeJob(1, lasp::v1::TrainingJob::STATE_RUNNING), true},
          PutWorker{"w", "incarnation", {.cpu = 3, .gpu = 0}, false}});
  store_ = nullptr;
  {
    auto database =
        SqliteDatabase::Open(options_.path, "", SqliteDatabase::Mode::kReadWrite).value();
    LASP_ASSERT_OK(
        database.Execute("DROP TABLE gemm_records; ALTER TABLE workers DROP COLUMN gpu_slot_count; "
                         "PRAGMA user_version = 2"));
  }
  LASP_ASSERT_OK(Open());
  const StoreContents contents = store_->Load().value();
  ASSERT_EQ(contents.workers.size(), 1);
  EXPECT_EQ(contents.workers[0].slots.cpu, 3);
  EXPECT_EQ(contents.workers[0].slots.gpu, 0);
  ASSERT_EQ(contents.jobs.size(), 1);
  EXPECT_EQ(contents.jobs[0].gemm_record, "");
  Commit({PutGemmRecord{1, "chosen"}});
}

TEST_F(SqliteJobStoreTest, AStoreOfTheFirstSchemaIsBroughtUp) {
  LASP_ASSERT_OK(Open());
  Commit({PutJob{MakeJob(1, lasp::v1::TrainingJob::STATE_RUNNING), true}});
  store_ = nullptr;
  {
    auto database =
        SqliteDatabase::Open(options_.path, "", SqliteDatabase::Mode::kReadWrite).value();
    LASP_ASSERT_OK(database.Execute(
        "DROP TABLE gemm_records; ALTER TABLE workers DROP COLUMN gpu_slot_count;"
        "DROP TABLE requests; CREATE UNIQUE INDEX jobs_by_name ON jobs (name);"
        "CREATE TABLE requests (key TEXT PRIMARY KEY, fingerprint INTEGER NOT NULL, "
        "job_name TEXT NOT NULL, job_uid TEXT NOT NULL, expire_unix_micros INTEGER NOT NULL) "
        "WITHOUT ROWID; CREATE INDEX requests_by_expiry ON requests (expire_unix_micros);"
        "INSERT INTO requests VALUES ('a', 1, 'job-1', 'uid-1', 2000), "
        "('b', 2, 'job-1', 'uid-1', 1000); PRAGMA user_version = 1"));
  }
  LASP_ASSERT_OK(Open());
  const StoreContents contents = store_->Load().value();
  ASSERT_EQ(contents.jobs.size(), 1);
  ASSERT_EQ(contents.requests.size(), 2);
  EXPECT_EQ(contents.requests[0].key, "a") << "newest first";
  EXPECT_EQ(contents.requests[1].key, "b");
  Commit({ExpireRequests{absl::FromUnixMicros(1'000)},
          PutRequest{"a", 3, "job-2", "uid-2", absl::FromUnixMicros(3'000)}});
  LASP_ASSERT_OK(Open());
  const StoreContents later = store_->Load().value();
  ASSERT_EQ(later.requests.size(), 2);
  EXPECT_EQ(later.requests[0].fingerprint, 3) << "the one that counts comes first";
}

// Clients that come back as soon as they are answered share commits, however slow a sync is.
TEST_F(SqliteJobStoreTest, ThoseWhoComeAgainRideTheNextCommit) {
  struct CommitCounter final : CoreObserver {
    void OnCommit(size_t /*mutations*/, absl::Duration /*took*/) override { ++commits; }

    std::atomic<int> commits{0};
  };

  constexpr int kClients = 8;
  constexpr int kRounds = 12;
  options_.vfs = "faulty";
  // Two groups that take turns need about 2 * kRounds. On a machine that is too busy to wake the
  // clients in time they do; hence some attempts.
  int fewest = 2 * kRounds;
  for (int attempt = 0; attempt < 5 && fewest > 3 * kRounds / 2; ++attempt) {
    CommitCounter counter;
    store_ = SqliteJobStore::Open(options_, &counter).value();
    Faults()->sync_delay_micros = 20'000;
    std::vector<std::thread> clients;
    clients.reserve(kClients);
    for (int client = 0; client < kClients; ++client) {
      clients.emplace_back([this, client] {
        for (int round = 0; round < kRounds; ++round) {
          Commit({PutRankExit{client + 1, 1, round, 0}});
        }
      });
    }
    for (std::thread& client : clients) {
      client.join();
    }
    Faults()->sync_delay_micros = 0;
    store_ = nullptr;
    fewest = std::min(fewest, counter.commits.load());
  }
  EXPECT_LE(fewest, 3 * kRounds / 2);
}

TEST_F(SqliteJobStoreTest, ANewerSchemaIsRefused) {
  LASP_ASSERT_OK(Open());
  store_ = nullptr;
  auto database = SqliteDatabase::Open(options_.path, "", SqliteDatabase::Mode::kReadWrite).value();
  LASP_ASSERT_OK(database.Execute("PRAGMA user_version = 7"));
  const absl::Status status = Open();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition,
                               HasSubstr("schema version 7, this lasp-server knows versions up")));
  EXPECT_EQ(ErrorReason(status), "SCHEMA_TOO_NEW");
}

TEST_F(SqliteJobStoreTest, ADamagedStoreIsRefused) {
  LASP_ASSERT_OK(Open());
  Commit({PutJob{MakeJob(1, lasp::v1::TrainingJob::STATE_QUEUED), true}});
  store_ = nullptr;
  FILE* file = std::fopen(options_.path.c_str(), "r+");
  ASSERT_NE(file, nullptr);
  std::fseek(file, 4096, SEEK_SET);
  const std::string noise(20'000, '\x5a');
  std::fwrite(noise.data(), 1, noise.size(), file);
  std::fclose(file);
  const absl::Status status = Open();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss, HasSubstr(options_.path)));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("backup")));
  EXPECT_EQ(ErrorReason(status), "STORE_DAMAGED");
}

TEST_F(SqliteJobStoreTest, AFolderThatIsGoneIsNamed) {
  options_.path = directory_.Join("absent/store.db");
  const absl::Status status = Open();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr(options_.path)));
  EXPECT_EQ(ErrorReason(status), "STORE_UNAVAILABLE");
}

TEST_F(SqliteJobStoreTest, AnUnreadableRowNamesTheStore) {
  LASP_ASSERT_OK(Open());
  PutStepRange(1, 1, 1);
  auto database = SqliteDatabase::Open(options_.path, "", SqliteDatabase::Mode::kReadWrite).value();
  LASP_ASSERT_OK(database.Execute("UPDATE steps SET metrics = x'ffff'"));
  const absl::Status status = store_->ReadSteps(1, 1, 0, 1).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss, HasSubstr(options_.path)));
  EXPECT_EQ(ErrorReason(status), "STORE_DAMAGED");
  // What it cannot run is its own fault.
  LASP_ASSERT_OK(database.Execute("DROP TABLE steps"));
  const absl::Status fault = store_->CountSteps(1, 1, 0).status();
  EXPECT_THAT(fault, StatusIs(absl::StatusCode::kInternal, HasSubstr(options_.path)));
  EXPECT_EQ(ErrorReason(fault), "STORE_FAULT");
}

TEST_F(SqliteJobStoreTest, NewerGenerationsReplaceOlderSteps) {
  LASP_ASSERT_OK(Open());
  PutStepRange(1, 1, 10);
  PutStepRange(2, 1, 4);
  PutStepRange(1, 3, 6);  // late
  EXPECT_EQ(store_->CountSteps(1, 1, 0).value(), 10);
  EXPECT_EQ(store_->CountSteps(1, 3, 5).value(), 3);
  EXPECT_EQ(store_->ReadGenerationSteps(1, 2, 0, 100).value().size(), 4);
  EXPECT_EQ(store_->NextGeneration(1, 0).value(), 1);
  EXPECT_EQ(store_->NextGeneration(1, 1).value(), 2);
  EXPECT_EQ(store_->NextGeneration(1, 2).value(), 0);
  EXPECT_THAT(Steps(2, 9, 3), ElementsAre(2, 5, 8, 9));
  EXPECT_THAT(Steps(1, 0, 9), ElementsAre(1, 10));
}

TEST_F(SqliteJobStoreTest, LongJobsKeepAThinnedSeries) {
  options_.max_steps_per_job = 100;
  LASP_ASSERT_OK(Open());
  int64_t most = 0;
  for (int64_t step = 1; step <= 2'000; step += 10) {
    PutStepRange(1, step, step + 9);
    most = std::max(most, store_->CountSteps(1, 1, 0).value());
  }
  EXPECT_LE(most, 100);
  const std::vector<int64_t> steps = Steps(1, 0, 1);
  EXPECT_GT(steps.size(), 40);
  EXPECT_EQ(steps.front(), 1);
  // The newest are all there; the older ones are at even distances.
  for (int64_t step = 1'981; step <= 2'000; ++step) {
    EXPECT_THAT(steps, ::testing::Contains(step));
  }
  for (size_t i = 2; i < 20; ++i) {
    EXPECT_EQ(steps[i + 1] - steps[i], steps[2] - steps[1]) << i;
  }
}

TEST_F(SqliteJobStoreTest, RangesAreThinnedEvenlyWithTheirEnds) {
  LASP_ASSERT_OK(Open());
  PutStepRange(1, 1, 1'000);
  const MetricsHub hub(store_.get());
  for (const int points : {1, 2, 3, 7, 99, 100, 500, 999, 1'000, 5'000}) {
    const auto steps = hub.Query(1, 101, 900, points).value();
    EXPECT_LE(std::ssize(steps), points);
    EXPECT_GE(std::ssize(steps), std::min(points, 800) / 2);
    EXPECT_EQ(steps.back().step(), 900);
    if (points > 1) {
      EXPECT_EQ(steps.front().step(), 101);
    }
  }
  EXPECT_TRUE(hub.Query(1, 2'000, 0, 10).value().empty());
}

TEST_F(SqliteJobStoreTest, AFollowerGetsEveryRowAndThenTheNextGeneration) {
  LASP_ASSERT_OK(Open());
  MetricsHub hub(store_.get());
  int told = 0;
  auto subscription = hub.Subscribe(1, {.generation = 0, .step = 4}, [&told] { ++told; });
  const auto next = [&](int limit) {
    const auto rows = subscription->Next(limit, /*thorough=*/false).value();
    std::vector<int64_t> steps;
    steps.reserve(rows.size());
    for (const auto& step : rows) {
      steps.push_back(step.step());
    }
    return steps;
  };
  EXPECT_TRUE(next(10).empty());
  PutStepRange(1, 1, 8);
  hub.Notify(1, {1, 8});
  EXPECT_THAT(next(3), ElementsAre(5, 6, 7));
  EXPECT_THAT(next(3), ElementsAre(8));
  EXPECT_TRUE(next(3).empty());
  PutStepRange(2, 1, 2);
  hub.Notify(1, {2, 2});
  EXPECT_THAT(next(3), ElementsAre(1, 2));
  hub.Notify(2, {1, 1});
  EXPECT_EQ(told, 2);
  subscription = nullptr;
  hub.Notify(1, {2, 3});
  EXPECT_EQ(told, 2);
}

TEST_F(SqliteJobStoreTest, AFailingDiskDelaysAndLosesNothing) {
  options_.vfs = "faulty";
  Faults();
  LASP_ASSERT_OK(Open());
  Faults()->full = true;
  std::mutex mutex;
  std::condition_variable changed;
  int committed = 0;
  for (int i = 1; i <= 20; ++i) {
    store_->Commit({PutJob{MakeJob(i, lasp::v1::TrainingJob::STATE_QUEUED), true}}, [&] {
      const std::lock_guard<std::mutex> lock(mutex);
      ++committed;
      changed.notify_all();
    });
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (store_->health().ok() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_THAT(store_->health(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("full")));
  EXPECT_EQ(store_->pending(), 20);
  {
    const std::lock_guard<std::mutex> lock(mutex);
    EXPECT_EQ(committed, 0);
  }
  Faults()->full = false;
  {
    std::unique_lock<std::mutex> lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(30), [&] { return committed == 20; }));
  }
  LASP_EXPECT_OK(store_->health());
  LASP_ASSERT_OK(Open());
  EXPECT_EQ(store_->Load().value().jobs.size(), 20);
}

TEST_F(SqliteJobStoreTest, GroupCommitSharesItsSyncs) {
  options_.vfs = "faulty";
  Faults()->sync_delay_micros = 5'000;
  LASP_ASSERT_OK(Open());
  const int64_t before = Faults()->sync_count;
  std::mutex mutex;
  std::condition_variable changed;
  int committed = 0;
  constexpr int kCount = 500;
  for (int i = 1; i <= kCount; ++i) {
    store_->Commit({PutJob{MakeJob(i, lasp::v1::TrainingJob::STATE_QUEUED), true}}, [&] {
      const std::lock_guard<std::mutex> lock(mutex);
      ++committed;
      changed.notify_all();
    });
  }
  std::unique_lock<std::mutex> lock(mutex);
  ASSERT_TRUE(
      changed.wait_for(lock, std::chrono::seconds(30), [&] { return committed == kCount; }));
  EXPECT_LT(Faults()->sync_count - before, kCount / 10);
}

}  // namespace
}  // namespace lasp::server
