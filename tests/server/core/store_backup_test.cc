// Backups of a store that is written to, and what a store is after one was restored.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "proto/rpc/error_details.h"
#include "server/backup_folder.h"
#include "server/server_core.h"
#include "server/store_facts.h"
#include "server/store_restore.h"
#include "tests/server/core/fake_clock.h"
#include "tests/server/core/store_fixture.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

namespace fs = std::filesystem;
using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class StoreBackupTest : public StoreFixture {
 protected:
  void SetUp() override {
    StoreFixture::SetUp();
    backups_ = NewFolder(7);
  }

  std::unique_ptr<BackupFolder> NewFolder(int max_backups) {
    return std::make_unique<BackupFolder>(
        BackupFolder::Options{.folder = directory_.Join("backups"),
                              .store_path = options_.path,
                              .max_backups = max_backups},
        &clock_);
  }

  absl::StatusOr<RestoreResult> Restore(const std::string& from, bool replace = false) {
    store_ = nullptr;
    return RestoreStore({.data_dir = directory_.path(), .backup = from, .replace = replace},
                        absl::FromUnixSeconds(2'000'000'000));
  }

  static void Damage(const std::string& path, int64_t at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(at);
    file << std::string(3'000, '\x5a');
  }

  testing::FakeClock clock_;
  std::unique_ptr<BackupFolder> backups_;
};

TEST_F(StoreBackupTest, ACopyOfABusyStoreIsOneMoment) {
  LASP_ASSERT_OK(Open());
  // Each transaction adds a job and its transition: a copy has both or neither.
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int64_t id = 1; !stop; ++id) {
      AddTransition transition{.job_id = id, .revision = 1, .transition = {}};
      transition.transition.set_message(std::string(2'000, 'x'));
      Commit({PutJob{MakeJob(id, lasp::v1::TrainingJob::STATE_QUEUED), true}, transition});
    }
  });
  int64_t most = 0;
  for (int round = 0; round < 5; ++round) {
    const auto backup = backups_->Create();
    LASP_ASSERT_OK(backup);
    auto copy = SqliteDatabase::Open(backup->path, "", SqliteDatabase::Mode::kReadOnly).value();
    const int64_t jobs = copy.QueryInteger("SELECT COUNT(*) FROM jobs").value();
    EXPECT_EQ(copy.QueryInteger("SELECT COUNT(*) FROM transitions").value(), jobs);
    EXPECT_GE(jobs, most);
    most = jobs;
  }
  stop = true;
  writer.join();
  EXPECT_GT(most, 0);
  LASP_EXPECT_OK(store_->health());
}

TEST_F(StoreBackupTest, AFolderHoldsTheNewestAndNothingElse) {
  LASP_ASSERT_OK(Open());
  backups_ = NewFolder(3);
  EXPECT_THAT(backups_->List().value(), IsEmpty());
  std::vector<std::string> ids;
  ids.reserve(5);
  for (int i = 0; i < 5; ++i) {
    clock_.Advance(absl::Minutes(1));
    ids.push_back(backups_->Create().value().id);
    directory_.Write("backups/left.sqlite.partial", "of a crash");
  }
  directory_.Write("backups/notes.txt", "somebody else's");
  const auto listed = backups_->List().value();
  ASSERT_THAT(listed, SizeIs(3));
  for (size_t i = 0; i < listed.size(); ++i) {
    EXPECT_EQ(listed[i].id, ids[4 - i]);
    EXPECT_EQ(listed[i].byte_count, static_cast<int64_t>(fs::file_size(listed[i].path)));
    EXPECT_THAT(listed[i].sha256, SizeIs(64));
    EXPECT_EQ(fs::status(listed[i].path).permissions() & fs::perms::all,
              fs::perms::owner_read | fs::perms::owner_write);
  }
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory_.Join("backups"))) {
    names.insert(entry.path().extension().string());
  }
  EXPECT_EQ(names, (std::set<std::string>{".sqlite", ".sha256", ".txt", ".partial"}));
}

TEST_F(StoreBackupTest, TheNewestIsKnownAlsoAfterARestart) {
  LASP_ASSERT_OK(Open());
  EXPECT_EQ(backups_->newest(), absl::UnixEpoch());
  LASP_ASSERT_OK(backups_->Create());
  clock_.Advance(absl::Hours(3));
  const absl::Time second = backups_->Create().value().create_time;
  EXPECT_EQ(backups_->newest(), second);
  clock_.Advance(absl::Hours(3));
  backups_->Stop();
  EXPECT_FALSE(backups_->Create().ok());
  EXPECT_EQ(backups_->newest(), second);
  // A copy without its digest is no backup: the crash came before it was read back.
  directory_.Write("backups/20991231T000000Z-aaaa.sqlite", "cut off");
  // An id has whole seconds.
  EXPECT_EQ(NewFolder(7)->newest(), absl::FromUnixSeconds(absl::ToUnixSeconds(second)));
}

TEST_F(StoreBackupTest, ADiskWithoutRoomIsSaid) {
  // A store of more than the disk has free, none of it written.
  const std::string store = directory_.Write("large.sqlite", "");
  fs::resize_file(store, fs::space(directory_.path()).available);
  BackupFolder folder({.folder = directory_.Join("backups"), .store_path = store}, &clock_);
  const absl::Status refused = folder.Create().status();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("make room, or set --backup_dir to another disk")));
  EXPECT_EQ(ErrorReason(refused), "NO_ROOM");
  EXPECT_TRUE(fs::is_empty(directory_.Join("backups")));
  // A store that fits in needs no more than itself and some room.
  fs::resize_file(store, 4'096);
  EXPECT_NE(ErrorReason(folder.Create().status()), "NO_ROOM");
}

TEST_F(StoreBackupTest, OneIsMadeAtATime) {
  LASP_ASSERT_OK(Open());
  constexpr int kThreads = 6;
  std::atomic<int> made{0};
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      const auto backup = backups_->Create();
      made += backup.ok() ? 1 : 0;
      EXPECT_TRUE(backup.ok() || ErrorReason(backup.status()) == "BACKUP_RUNNING")
          << backup.status();
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_GE(made.load(), 1);
  EXPECT_THAT(backups_->List().value(), SizeIs(made.load()));
}

TEST_F(StoreBackupTest, AStopEndsIt) {
  LASP_ASSERT_OK(Open());
  backups_->Stop();
  EXPECT_THAT(backups_->Create(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("shutting down")));
  EXPECT_THAT(backups_->List().value(), IsEmpty());
  EXPECT_TRUE(fs::is_empty(directory_.Join("backups")));
}

TEST_F(StoreBackupTest, ARestoredStoreIsAnother) {
  LASP_ASSERT_OK(Open());
  const std::string uuid = store_->uuid();
  const int64_t revision = store_->Load().value().base_revision;
  Commit({PutJob{MakeJob(1, lasp::v1::TrainingJob::STATE_RUNNING), true}});
  const auto backup = backups_->Create();
  LASP_ASSERT_OK(backup);
  Commit({PutJob{MakeJob(2, lasp::v1::TrainingJob::STATE_QUEUED), true}});

  const auto refused = Restore(backup->path);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("--replace_store")));
  EXPECT_EQ(ErrorReason(refused.status()), "STORE_EXISTS");
  LASP_ASSERT_OK(Open());
  EXPECT_THAT(store_->Load().value().jobs, SizeIs(2)) << "what it was";

  const auto result = Restore(backup->path, /*replace=*/true);
  LASP_ASSERT_OK(result);
  EXPECT_EQ(result->jobs, 1);
  EXPECT_EQ(absl::ToUnixSeconds(result->backup_time), absl::ToUnixSeconds(backup->create_time));
  EXPECT_EQ(ReadStoreFacts(result->put_aside).value().jobs, 2) << "with what its log held";
  LASP_ASSERT_OK(Open());
  EXPECT_NE(store_->uuid(), uuid);
  const StoreContents contents = store_->Load().value();
  EXPECT_THAT(contents.jobs, SizeIs(1));
  EXPECT_EQ(contents.generation_floor, 2'000'000'000);
  EXPECT_GT(contents.base_revision, revision + (int64_t{1} << 40));
  const auto records = store_->ReadAudit({}, 10).value().records;
  ASSERT_THAT(records, SizeIs(1));
  EXPECT_EQ(records[0].principal(), "operator");
  EXPECT_EQ(records[0].method(), "restore");
  EXPECT_THAT(backup->path, HasSubstr(records[0].resource()));
  store_ = nullptr;
  EXPECT_EQ(ReadStoreFacts(options_.path).value().backup_time, absl::InfinitePast());
  // The same backup once more leads to still another history.
  const std::string second_uuid = ReadStoreFacts(options_.path).value().uuid;
  LASP_ASSERT_OK(Restore(backup->path, /*replace=*/true));
  const std::string third_uuid = ReadStoreFacts(options_.path).value().uuid;
  EXPECT_NE(third_uuid, second_uuid);
  // A store that came from a snapshot of the disk is made sound in its place.
  LASP_ASSERT_OK(Restore(options_.path, /*replace=*/true));
  EXPECT_NE(ReadStoreFacts(options_.path).value().uuid, third_uuid);
}

TEST_F(StoreBackupTest, WhatIsNoSoundBackupIsRefusedAndChangesNothing) {
  LASP_ASSERT_OK(Open());
  Commit({PutJob{MakeJob(1, lasp::v1::TrainingJob::STATE_QUEUED), true}});
  const StoreBackup backup = backups_->Create().value();
  const std::string uuid = store_->uuid();
  const auto copy = [&](const std::string& name) {
    fs::copy_file(backup.path, directory_.Join(name));
    return directory_.Join(name);
  };
  // Other bytes than its digest says; and without a digest, by what SQLite finds.
  fs::copy_file(backup.path + ".sha256", directory_.Join("changed.sqlite.sha256"));
  const std::string changed = copy("changed.sqlite");
  Damage(changed, 5'000);
  EXPECT_EQ(ErrorReason(Restore(changed, true).status()), "DIGEST_MISMATCH");
  const std::string damaged = copy("damaged.sqlite");
  Damage(damaged, 4'096);
  EXPECT_EQ(ErrorReason(Restore(damaged, true).status()), "STORE_DAMAGED");
  const std::string cut = copy("cut.sqlite");
  fs::resize_file(cut, uintmax_t{4'096} * 3);
  EXPECT_EQ(ErrorReason(Restore(cut, true).status()), "STORE_DAMAGED");
  // Something else.
  EXPECT_EQ(ErrorReason(Restore(directory_.Write("text", "no database"), true).status()),
            "NOT_A_STORE");
  {
    auto other =
        SqliteDatabase::Open(directory_.Join("other"), "", SqliteDatabase::Mode::kReadWrite)
            .value();
    LASP_ASSERT_OK(other.Execute("CREATE TABLE songs (name TEXT)"));
    auto marked =
        SqliteDatabase::Open(copy("marked.sqlite"), "", SqliteDatabase::Mode::kReadWrite).value();
    LASP_ASSERT_OK(marked.Execute("PRAGMA application_id = 7"));
    auto newer =
        SqliteDatabase::Open(copy("newer.sqlite"), "", SqliteDatabase::Mode::kReadWrite).value();
    LASP_ASSERT_OK(newer.Execute("PRAGMA user_version = 99"));
  }
  EXPECT_EQ(ErrorReason(Restore(directory_.Join("other"), true).status()), "NOT_A_STORE");
  EXPECT_EQ(ErrorReason(Restore(directory_.Join("marked.sqlite"), true).status()), "NOT_A_STORE");
  const auto newer = Restore(directory_.Join("newer.sqlite"), true);
  EXPECT_EQ(ErrorReason(newer.status()), "SCHEMA_TOO_NEW");
  EXPECT_THAT(Restore(directory_.Join("absent"), true),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("absent")));
  LASP_ASSERT_OK(Open());
  EXPECT_EQ(store_->uuid(), uuid);
}

TEST_F(StoreBackupTest, AnOlderStoreIsBackedUpBeforeItIsChanged) {
  LASP_ASSERT_OK(Open());
  Commit({PutJob{MakeJob(1, lasp::v1::TrainingJob::STATE_QUEUED), true}});
  store_ = nullptr;
  {
    auto database =
        SqliteDatabase::Open(options_.path, "", SqliteDatabase::Mode::kReadWrite).value();
    LASP_ASSERT_OK(database.Execute(
        "DROP TABLE audit_changes; DROP TABLE audit_refusals; DROP TABLE checkpoints; "
        "DROP TABLE checkpoint_shards; DROP TABLE worker_failures; DROP TABLE "
        "checkpoint_removals; DELETE FROM meta WHERE key = 'schema_additions'; "
        "PRAGMA application_id = 0"));
  }
  CoreOptions options;
  options.data_dir = directory_.path();
  for (int start = 0; start < 2; ++start) {
    auto core = ServerCore::Open(options, &SystemClock(), nullptr);
    LASP_ASSERT_OK(core);
    const auto backups = (*core)->backups().List().value();
    ASSERT_THAT(backups, SizeIs(1)) << "start " << start;
    EXPECT_THAT(backups[0].id, HasSubstr("before-upgrade"));
    // Nobody asked for it: who wants no backups is not told that the newest is old.
    EXPECT_EQ((*core)->backups().newest(), absl::UnixEpoch());
    const StoreFacts facts = ReadStoreFacts(backups[0].path).value();
    EXPECT_EQ(facts.schema.additions, 0);
    EXPECT_EQ(facts.jobs, 1);
    EXPECT_EQ(ReadStoreFacts(options_.path).value().schema.additions, kSchemaAdditions);
  }
}

// The release before reads and writes the store, blind to what was added since.
TEST_F(StoreBackupTest, AdditionsLeaveTheSchemaVersionAlone) {
  LASP_ASSERT_OK(Open());
  auto database = SqliteDatabase::Open(options_.path, "", SqliteDatabase::Mode::kReadWrite).value();
  EXPECT_EQ(database.QueryInteger("PRAGMA user_version").value(), 3);
  LASP_ASSERT_OK(database.Execute(
      "UPDATE meta SET value = 99 WHERE key = 'schema_additions'; CREATE TABLE later (id)"));
  LASP_ASSERT_OK(Open());
  EXPECT_EQ(database.QueryInteger("SELECT value FROM meta WHERE key = 'schema_additions'").value(),
            99);
}

TEST_F(StoreBackupTest, AMigrationThatFailsLeavesTheStoreAsItWas) {
  LASP_ASSERT_OK(Open());
  Commit({PutJob{MakeJob(1, lasp::v1::TrainingJob::STATE_QUEUED), true}});
  store_ = nullptr;
  auto database = SqliteDatabase::Open(options_.path, "", SqliteDatabase::Mode::kReadWrite).value();
  // The second of its tables is there: the step fails in its middle.
  LASP_ASSERT_OK(
      database.Execute("DROP TABLE audit_changes; DROP TABLE checkpoints; DROP TABLE "
                       "checkpoint_shards; DROP TABLE worker_failures; DROP TABLE "
                       "checkpoint_removals; DELETE FROM meta WHERE key = 'schema_additions'"));
  EXPECT_FALSE(Open().ok());
  EXPECT_EQ(database.QueryInteger("SELECT COUNT(*) FROM sqlite_schema WHERE name = 'audit_changes'")
                .value(),
            0);
  LASP_ASSERT_OK(database.Execute("DROP TABLE audit_refusals"));
  LASP_ASSERT_OK(Open());
  EXPECT_THAT(store_->Load().value().jobs, SizeIs(1));
}

}  // namespace
}  // namespace lasp::server
