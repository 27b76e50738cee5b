// Steps' figures, the jobs that run and ranks' logs, as the real program shows them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/error_details.h"
#include "tests/client/commands_fixture.h"

namespace lasp::client {
namespace {

using FiguresTest = CommandsFixture;
using lasp::v1::TrainingJob;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST_F(FiguresTest, TopShowsWhereTheTimeOfAStepGoes) {
  TrainingJob job = RunningJob("quickstart", 5);
  job.add_placements()->set_rank(0);
  job.add_placements()->set_rank(1);
  server_.PutJob(job);
  server_.PutJob(QueuedJob("waits"));
  std::vector<lasp::v1::StepMetrics> steps(1);
  steps[0].set_step(5);
  steps[0].set_loss(2.5);
  steps[0].set_tokens_per_second(14230);
  steps[0].set_step_seconds(0.5);
  steps[0].set_data_seconds(0.005);
  steps[0].set_forward_seconds(0.15);
  steps[0].set_backward_seconds(0.25);
  steps[0].set_sp_wait_seconds(0.05);
  steps[0].set_gradient_sync_wait_seconds(0.01);
  steps[0].set_optimizer_seconds(0.02);
  server_.SetSteps(steps);
  const ProcessResult table = Run({"top"});
  EXPECT_EQ(table.exit_code, 0) << table.error;
  EXPECT_THAT(table.out, HasSubstr(" on 2 ranks in the project 'default', 14.2k tokens/s\n"));
  EXPECT_THAT(table.out, HasSubstr("14.2k  0.500s    1%  30%  50%      10%    2%"));
  // The coordinator is asked for those that hold slots.
  EXPECT_THAT(server_.last_list().filter(),
              AllOf(HasSubstr("state!=QUEUED"), HasSubstr("state!=SUCCEEDED")));
  EXPECT_EQ(server_.last_list().page_size(), 20);
  const auto array = json::parse(Run({"top", "-n", "7", "-o", "json"}).out);
  EXPECT_EQ(server_.last_list().page_size(), 7);
  ASSERT_FALSE(array.empty());
  const auto quickstart = std::find_if(array.begin(), array.end(), [](const json& entry) {
    return entry["name"] == "projects/default/trainingJobs/quickstart";
  });
  ASSERT_NE(quickstart, array.end());
  EXPECT_EQ((*quickstart)["state"], "RUNNING");
  EXPECT_EQ((*quickstart)["metrics"]["backward_seconds"], 0.25);
  EXPECT_EQ(Run({"top", "--interval", "soon"}).exit_code, 2);
}

TEST_F(FiguresTest, MetricsAreAnArrayOfSteps) {
  server_.PutJob(RunningJob("quickstart", 5));
  std::vector<lasp::v1::StepMetrics> steps;
  for (int i = 1; i <= 5; ++i) {
    lasp::v1::StepMetrics& step = steps.emplace_back();
    step.set_step(i);
    step.set_loss(6.0 - i);
    step.set_gradient_norm(1.25);
    step.set_learning_rate(1e-3);
    step.set_tokens_per_second(14230);
  }
  steps.back().set_eval_loss(3.5);
  steps.back().set_skipped(true);
  server_.SetSteps(steps);
  const auto array = json::parse(Run({"metrics", "quickstart", "-o", "json"}).out);
  ASSERT_EQ(array.size(), 5U);
  EXPECT_EQ(array[0]["step"], 1);
  EXPECT_EQ(array[4]["loss"], 1.0);
  EXPECT_EQ(array[4]["gradient_norm"], 1.25);
  EXPECT_EQ(array[4]["learning_rate"], 1e-3);
  EXPECT_EQ(array[4]["tokens_per_second"], 14230.0);
  EXPECT_EQ(array[4]["eval_loss"], 3.5);
  EXPECT_FALSE(array[0].contains("eval_loss"));
  EXPECT_EQ(server_.last_query().max_points(), 10000);

  const ProcessResult table = Run({"metrics", "job/quickstart", "--from", "4", "--to", "5"});
  EXPECT_EQ(table.out,
            "   STEP       LOSS  GRAD NORM  LEARNING RATE  TOKENS/S  EVAL LOSS\n"
            "      4    2.00000     1.2500      1.000e-03     14.2k          -\n"
            "     5!    1.00000     1.2500      1.000e-03     14.2k    3.50000\n");
  const ProcessResult backwards = Run({"metrics", "quickstart", "--from", "5", "--to", "4"});
  EXPECT_EQ(backwards.exit_code, 2);
  EXPECT_THAT(backwards.error, HasSubstr("--to 4 is before"));
  const ProcessResult followed = Run({"metrics", "quickstart", "--follow", "-o", "json"});
  EXPECT_EQ(std::count(followed.out.begin(), followed.out.end(), '\n'), 5);
  const ProcessResult rows = Run({"metrics", "quickstart", "-f", "--from", "2"});
  EXPECT_EQ(std::count(rows.out.begin(), rows.out.end(), '\n'), 5);  // a header and four steps
}

TEST_F(FiguresTest, FollowedMetricsSurviveALostConnectionAndARestart) {
  server_.PutJob(RunningJob("quickstart", 5));
  std::vector<lasp::v1::StepMetrics> steps;
  for (const auto& [generation, step] :
       {std::pair{2, 7}, std::pair{2, 8}, std::pair{2, 9}, std::pair{3, 1}, std::pair{3, 2}}) {
    steps.emplace_back().set_step(step);
    steps.back().set_generation(generation);
  }
  server_.SetSteps(steps);
  server_.BreakNextSteps();
  const ProcessResult result = Run({"metrics", "quickstart", "--follow", "-o", "json"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.error, HasSubstr("trying again"));
  std::string seen;
  for (const absl::string_view line : absl::StrSplit(result.out, '\n', absl::SkipEmpty())) {
    const json row = json::parse(line.begin(), line.end());
    seen += absl::StrCat(row["generation"].get<int>(), ".", row["step"].get<int>(), " ");
  }
  EXPECT_EQ(seen, "2.7 2.8 2.9 3.1 3.2 ");
  EXPECT_EQ(server_.last_steps().from_generation(), 2);
  EXPECT_EQ(server_.last_steps().from_step(), 9);
}

TEST_F(FiguresTest, AReaderThatWasTooSlowGoesOnWhereItWas) {
  server_.PutJob(RunningJob("quickstart", 5));
  std::vector<lasp::v1::StepMetrics> steps(3);
  for (size_t i = 0; i < steps.size(); ++i) {
    steps[i].set_step(static_cast<int64_t>(i) + 1);
    steps[i].set_generation(1);
  }
  server_.SetSteps(steps);
  const auto follow = [&](const std::string& reason) {
    server_.BreakNextSteps(
        ErrorWithReason(absl::StatusCode::kResourceExhausted, "for a test", reason));
    return Run({"metrics", "quickstart", "--follow", "-o", "json"});
  };
  const ProcessResult slow = follow("SLOW_READER");
  EXPECT_EQ(slow.exit_code, 0) << slow.error;
  EXPECT_EQ(std::count(slow.out.begin(), slow.out.end(), '\n'), 3);
  EXPECT_EQ(slow.error, "");  // a pager would show it in its text
  EXPECT_EQ(server_.last_steps().from_step(), 3);
  // What would come again at once is not tried.
  EXPECT_EQ(follow("TOO_MANY_STREAMS").exit_code, 6);
}

TEST_F(FiguresTest, PlotsAreDrawnOverTheSteps) {
  server_.PutJob(RunningJob("quickstart", 5));
  std::vector<lasp::v1::StepMetrics> steps(5);
  for (int i = 0; i < 5; ++i) {
    steps[static_cast<size_t>(i)].set_step(i + 1);
    steps[static_cast<size_t>(i)].set_loss(i == 2 ? std::nan("") : 6.0 - i);
    steps[static_cast<size_t>(i)].set_tokens_per_second(14'000 + i);
  }
  steps[3].set_eval_loss(3.5);
  server_.SetSteps(steps);
  const ProcessResult plot = Run({"plot", "quickstart", "--height", "5"});
  EXPECT_EQ(plot.exit_code, 0) << plot.error;
  EXPECT_THAT(plot.out, StartsWith("loss of job/quickstart, RUNNING, step 5/100 (nats a token)\n"));
  EXPECT_THAT(plot.out, HasSubstr("last 2 at step 5, lowest 2 at 5, highest 6 at 1\n"
                                  "1 value is not finite (x)\n"));
  for (const absl::string_view line : absl::StrSplit(plot.out, '\n')) {
    EXPECT_LE(line.size(), 80U);
  }
  EXPECT_THAT(Run({"plot", "quickstart", "--width", "60"}, "", {{"LANG", "C.UTF-8"}}).out,
              HasSubstr("└┬"));
  const auto document =
      json::parse(Run({"plot", "job/quickstart", "-m", "throughput", "-o", "json"}).out);
  EXPECT_EQ(document["metric"], "throughput");
  EXPECT_EQ(document["unit"], "tokens/s");
  EXPECT_EQ(document["points"].size(), 5U);
  EXPECT_EQ(document["points"][4], (json{5, 14'004.0}));
  const auto loss = json::parse(Run({"plot", "quickstart", "-o", "json"}).out);
  EXPECT_EQ(loss["points"][2], (json{3, nullptr}));
  EXPECT_EQ(loss["not_finite"], 1);
  const auto eval = json::parse(Run({"plot", "quickstart", "-m", "eval_loss", "-o", "json"}).out);
  EXPECT_EQ(eval["points"], (json{{4, 3.5}}));
  Run({"plot", "quickstart", "--from", "2", "--to", "4"});
  EXPECT_EQ(server_.last_query().from_step(), 2);
  EXPECT_EQ(server_.last_query().to_step(), 4);
  const ProcessResult wrong = Run({"plot", "quickstart", "--metric", "troughput"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.error, HasSubstr("did you mean 'throughput'?"));
  EXPECT_EQ(Run({"plot", "quickstart", "--from", "5", "--to", "4"}).exit_code, 2);
  EXPECT_EQ(Run({"plot", "quickstart", "--width", "5"}).exit_code, 2);
}

TEST_F(FiguresTest, LogsComeByRankAndTime) {
  server_.PutJob(RunningJob("quickstart", 5));
  std::vector<lasp::v1::LogLine> lines(2);
  lines[0].set_text("hello \x1b[31mred");
  lines[1].set_rank(1);
  lines[1].set_text("world");
  lines[1].mutable_time()->set_seconds(1);
  server_.SetLogLines(lines);
  // A pipe gets the bytes as they are.
  EXPECT_EQ(Run({"logs", "quickstart"}).out, "[rank 0] hello \x1b[31mred\n[rank 1] world\n");
  EXPECT_EQ(Run({"logs", "quickstart", "--rank", "1", "--timestamps"}).out,
            "1970-01-01T00:00:01Z world\n");
  Run({"logs", "quickstart", "-f", "--tail", "20", "--generation", "3", "--since", "10m"});
  const auto request = server_.last_logs();
  EXPECT_TRUE(request.follow());
  EXPECT_EQ(request.tail_lines(), 20);
  EXPECT_EQ(request.generation(), 3);
  EXPECT_NEAR(static_cast<double>(request.since().seconds()),
              static_cast<double>(absl::ToUnixSeconds(absl::Now()) - 600), 5);
  Run({"logs", "quickstart", "--since", "2026-11-21T20:20:25Z"});
  EXPECT_EQ(server_.last_logs().since().seconds(), 1795292425);
  EXPECT_EQ(Run({"logs", "quickstart", "--since", "yesterday"}).exit_code, 2);
  EXPECT_EQ(json::parse(Run({"logs", "quickstart", "-r", "1", "-o", "json"}).out)["text"], "world");
}

}  // namespace
}  // namespace lasp::client
