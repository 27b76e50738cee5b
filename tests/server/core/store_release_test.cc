// A store that the release before has written (stores/v3.sql), under this one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "server/server_core.h"
#include "server/sqlite_schema.h"
#include "tests/server/core/store_fixture.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::SizeIs;
using Job = lasp::v1::TrainingJob;

class StoreReleaseTest : public StoreFixture {
 protected:
  void SetUp() override {
    StoreFixture::SetUp();
    std::stringstream sql;
    sql << std::ifstream(LASP_STORE_FIXTURES "/v3.sql").rdbuf();
    LASP_ASSERT_OK(Database().Execute(sql.str()));
  }

  SqliteDatabase Database() {
    return SqliteDatabase::Open(options_.path, "", SqliteDatabase::Mode::kReadWrite).value();
  }

  // Tables and indices by name, as they were declared.
  std::map<std::string, std::string> Schema() {
    const SqliteDatabase database = Database();
    auto rows = SqliteStatement::Prepare(
                    database, "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
                    .value();
    std::map<std::string, std::string> schema;
    while (rows.Step().value()) {
      std::string name = rows.Text();
      schema[std::move(name)] = rows.Text();
    }
    return schema;
  }
};

TEST_F(StoreReleaseTest, ItsJobsAreThere) {
  CoreOptions options;
  options.data_dir = directory_.path();
  const auto core = ServerCore::Open(options, &SystemClock(), nullptr);
  LASP_ASSERT_OK(core);
  const std::map<std::string, Job::State> states = {
      {"done", Job::STATE_SUCCEEDED}, {"runs", Job::STATE_RUNNING}, {"waits", Job::STATE_QUEUED}};
  for (const auto& [id, state] : states) {
    const JobViewPtr job = (*core)->jobs().Find(absl::StrCat("projects/default/trainingJobs/", id));
    ASSERT_NE(job, nullptr) << id;
    EXPECT_EQ(job->job.state(), state) << id;
    EXPECT_EQ(job->ToProto().spec().model().hidden_size(), 32);
    // A default that has come since.
    EXPECT_EQ(job->ToProto().spec().checkpoint().interval().seconds(), 600) << id;
    EXPECT_EQ((*core)->store().ReadSteps(job->id, 1, 0, 1).value().empty(),
              state == Job::STATE_QUEUED);
  }
  EXPECT_THAT((*core)->backups().List().value(), SizeIs(1));
}

// That release refuses a store whose user_version is above its own, and uses the tables that it
// knows by its own statements: neither may change under it.
TEST_F(StoreReleaseTest, WhatItKnowsStaysAsItWas) {
  const auto before = Schema();
  ASSERT_THAT(before, ::testing::Contains(::testing::Key("jobs")));
  LASP_ASSERT_OK(Open());
  EXPECT_EQ(Database().QueryInteger("PRAGMA user_version").value(), 3);
  EXPECT_THAT(Schema(), IsSupersetOf(before));
}

// It goes on with the rows that it wrote; what it does not know is written out in memory alone.
TEST_F(StoreReleaseTest, SpecsStayAsTheyWereStored) {
  const auto stored_bytes = [this] {
    return Database().QueryInteger("SELECT SUM(LENGTH(spec)) FROM jobs").value();
  };
  const int64_t before = stored_bytes();
  LASP_ASSERT_OK(Open());
  LASP_ASSERT_OK(store_->Load());
  EXPECT_EQ(stored_bytes(), before);
}

TEST_F(StoreReleaseTest, ASpecThatCannotBeReadIsNamed) {
  LASP_ASSERT_OK(Database().Execute("UPDATE jobs SET spec = X'FF' WHERE id = 2"));
  LASP_ASSERT_OK(Open());
  EXPECT_THAT(store_->Load(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("job 2 cannot")));
}

}  // namespace
}  // namespace lasp::server
