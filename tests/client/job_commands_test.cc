// What a job's name means: to a watch that outlives the job, and with --from.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/client/commands_fixture.h"

namespace lasp::client {
namespace {

using JobCommandsTest = CommandsFixture;
using ::testing::HasSubstr;

constexpr char kJob[] = "spec: {max_steps: 100}\n";

TEST_F(JobCommandsTest, AWatchEndsWhenAnotherJobHasTheName) {
  server_.PutJob(RunningJob("quickstart", 5));
  int watches = 0;
  server_.OnWatch([&watches](FakeServer* server) {
    if (++watches == 1) {
      server->BreakWatches();
    } else {
      auto other = RunningJob("quickstart", 1);
      other.set_uid("another");
      server->PutJob(other);
    }
  });
  const ProcessResult result = Run({"watch", "quickstart"});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.error, HasSubstr("the job was deleted, and another one has its name now"));
}

TEST_F(JobCommandsTest, FromNamesACheckpoint) {
  const auto start = [&](const std::string& from) {
    const ProcessResult result =
        Run({"submit", "-f", "-", "--dry-run=server", "--from", from}, kJob);
    return result.exit_code == 0 ? server_.last_create().training_job().start_from() : result.error;
  };
  EXPECT_EQ(start("long"), "projects/default/trainingJobs/long/checkpoints/latest");
  EXPECT_EQ(start("long/latest"), "projects/default/trainingJobs/long/checkpoints/latest");
  EXPECT_EQ(start("long/20"), "projects/default/trainingJobs/long/checkpoints/20");
  for (const std::string wrong : {"job/long", "long/20/30", "Long", "/20"}) {
    EXPECT_THAT(start(wrong), HasSubstr("--from " + wrong + ": expected JOB or JOB/STEP")) << wrong;
  }
  EXPECT_EQ(server_.create_count(), 3);
}

}  // namespace
}  // namespace lasp::client
