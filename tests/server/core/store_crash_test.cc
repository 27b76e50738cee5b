// What the store has acknowledged survives its process and its machine: a child writes and tells
// which writes were acknowledged, until it is killed.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <set>
#include <string>
#include <thread>

#include "server/sqlite_database.h"
#include "tests/server/core/store_fixture.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

class StoreCrashTest : public StoreFixture {
 protected:
  // The ids that a child acknowledged before it was killed, which is after `count` of them.
  std::set<int64_t> RunAndKill(size_t count) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      close(ends[0]);
      Write(ends[1]);
    }
    close(ends[1]);
    std::set<int64_t> acknowledged;
    int64_t id = 0;
    while (acknowledged.size() < count &&
           read(ends[0], &id, sizeof(id)) == static_cast<ssize_t>(sizeof(id))) {
      acknowledged.insert(id);
    }
    kill(child, SIGKILL);
    while (read(ends[0], &id, sizeof(id)) == static_cast<ssize_t>(sizeof(id))) {
      acknowledged.insert(id);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status));
    close(ends[0]);
    return acknowledged;
  }

  [[noreturn]] void Write(int acknowledge) {
    auto store = SqliteJobStore::Open(options_, &observer_);
    if (!store.ok()) {
      _exit(1);
    }
    int64_t id = (*store)->Load().value().last_job_id;
    while (true) {
      if ((*store)->pending() > 200) {
        std::this_thread::yield();
        continue;
      }
      ++id;
      (*store)->Commit({PutJob{MakeJob(id, lasp::v1::TrainingJob::STATE_QUEUED), true}},
                       [id, acknowledge] {
                         if (write(acknowledge, &id, sizeof(id)) != sizeof(id)) {
                           _exit(1);
                         }
                       });
    }
  }

  void ExpectAllThere(const std::set<int64_t>& acknowledged) {
    std::set<int64_t> stored;
    LASP_ASSERT_OK(Open());
    const StoreContents contents = store_->Load().value();
    for (const StoredJob& job : contents.jobs) {
      stored.insert(job.view->id);
    }
    for (const int64_t id : acknowledged) {
      EXPECT_TRUE(stored.contains(id)) << id;
    }
    // Whole transactions in order: no holes.
    EXPECT_EQ(static_cast<int64_t>(stored.size()), contents.last_job_id);
    store_ = nullptr;
  }
};

TEST_F(StoreCrashTest, AKilledProcessHasKeptWhatItAcknowledged) {
  for (const size_t count : {1, 150, 700}) {
    const std::set<int64_t> acknowledged = RunAndKill(count);
    EXPECT_GE(acknowledged.size(), count);
    ExpectAllThere(acknowledged);
  }
}

TEST_F(StoreCrashTest, ALostMachineHasToo) {
  options_.vfs = "faulty";
  Faults()->drop_unsynced = true;
  const std::set<int64_t> acknowledged = RunAndKill(500);
  EXPECT_GE(acknowledged.size(), 500);
  options_.vfs = "";
  Faults()->drop_unsynced = false;
  ExpectAllThere(acknowledged);
}

// The shim itself: without syncs a kill loses what was written, so the test above can fail.
TEST_F(StoreCrashTest, TheShimDropsWhatIsNotSynced) {
  Faults()->drop_unsynced = true;
  const auto write_and_die = [this](const std::string& synchronous) {
    const pid_t child = fork();
    if (child == 0) {
      auto database =
          SqliteDatabase::Open(options_.path, "faulty", SqliteDatabase::Mode::kReadWrite);
      const bool ok =
          database.ok() && database
                               ->Execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = " +
                                         synchronous + "; CREATE TABLE t_" + synchronous + " (x)")
                               .ok();
      _exit(ok ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 0);
    auto database = SqliteDatabase::Open(options_.path, "", SqliteDatabase::Mode::kReadWrite);
    return database
        ->QueryInteger("SELECT COUNT(*) FROM sqlite_master WHERE name = 't_" + synchronous + "'")
        .value();
  };
  EXPECT_EQ(write_and_die("FULL"), 1);
  EXPECT_EQ(write_and_die("OFF"), 0);
}

}  // namespace
}  // namespace lasp::server
