// What the agent shows to Prometheus.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "proto/rpc/metrics_exposer.h"
#include "proto/rpc/process_metrics.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/agent/http_get.h"
#include "tests/worker/agent/manual_clock.h"
#include "worker/telemetry/agent_metrics.h"
#include "worker/telemetry/rank_metrics.h"

namespace lasp::worker {

class RankMetricsTestPeer {
 public:
  static size_t Kept(const RankMetrics& metrics) {
    MutexLock lock(&metrics.mutex_);
    return metrics.series_.size();
  }
};

namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;
using testing::HttpGet;
using testing::ManualClock;
using ::testing::Not;

lasp::v1::Fence FenceOf(int64_t generation, int rank) {
  lasp::v1::Fence fence;
  fence.set_training_job("projects/default/trainingJobs/job");
  fence.set_uid("uid");
  fence.set_generation(generation);
  fence.set_rank(rank);
  return fence;
}

lasp::internal::v1::RankStep StepOf(int64_t step, double seconds) {
  lasp::internal::v1::RankStep report;
  report.set_step(step);
  report.set_step_seconds(seconds);
  report.set_forward_seconds(seconds / 4);
  report.set_tokens_total(step * 8);
  return report;
}

std::string Page(const prometheus::Collectable& collectable) {
  return prometheus::TextSerializer().Serialize(collectable.Collect());
}

class RankMetricsTest : public ::testing::Test {
 protected:
  ManualClock clock_;
  RankMetrics metrics_{"w1", &clock_, absl::Minutes(5)};
};

TEST_F(RankMetricsTest, HistogramsCountEveryStep) {
  metrics_.Started(FenceOf(1, 0), 2);
  for (const double seconds : {0.005, 0.02, 0.02, 1000.0}) {
    metrics_.Stepped(FenceOf(1, 0), StepOf(1, seconds));
  }
  const std::string page = Page(metrics_);
  const std::string labels =
      R"(generation="1",rank="0",training_job="projects/default/trainingJobs/job")";
  for (const std::string& line : std::vector<std::string>{
           "lasp_worker_step_seconds_count{" + labels + "} 4\n",
           "lasp_worker_step_seconds_bucket{" + labels + ",le=\"0.01\"} 1\n",
           "lasp_worker_step_seconds_bucket{" + labels + ",le=\"0.0225\"} 3\n",
           "lasp_worker_step_seconds_bucket{" + labels + ",le=\"+Inf\"} 4\n",
           "lasp_worker_phase_seconds_count{" + labels + ",phase=\"forward\"} 4\n",
           "lasp_worker_info{" + labels + ",slot=\"2\",worker=\"w1\"} 1\n",
           "lasp_worker_steps_total{" + labels + "} 4\n",
       }) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

TEST_F(RankMetricsTest, MemoryIsByUse) {
  metrics_.Started(FenceOf(1, 0), 0);
  auto step = StepOf(1, 0.1);
  (*step.mutable_memory_bytes())["weights"] = 4096;
  (*step.mutable_memory_bytes())["states"] = 64;
  metrics_.Stepped(FenceOf(1, 0), step);
  const std::string page = Page(metrics_);
  EXPECT_THAT(page, HasSubstr("use=\"weights\"} 4096\n"));
  EXPECT_THAT(page, HasSubstr("use=\"states\"} 64\n"));
}

TEST_F(RankMetricsTest, LossIsThatOfRankZero) {
  metrics_.Started(FenceOf(1, 0), 0);
  metrics_.Started(FenceOf(1, 1), 1);
  auto step = StepOf(7, 0.1);
  step.mutable_metrics()->set_loss(2.5);
  step.mutable_metrics()->set_eval_loss(2.75);
  metrics_.Stepped(FenceOf(1, 0), step);
  step = StepOf(8, 0.1);
  step.mutable_metrics()->set_loss(2.25);
  metrics_.Stepped(FenceOf(1, 0), step);
  metrics_.Stepped(FenceOf(1, 1), StepOf(8, 0.1));
  const std::string page = Page(metrics_);
  EXPECT_THAT(page, HasSubstr("lasp_worker_loss{generation=\"1\",rank=\"0\","));
  EXPECT_THAT(page, HasSubstr("} 2.25\n"));
  // The last evaluation stays known between evaluations.
  EXPECT_THAT(page, HasSubstr("} 2.75\n"));
  EXPECT_THAT(page, Not(HasSubstr("lasp_worker_loss{generation=\"1\",rank=\"1\"")));
}

TEST_F(RankMetricsTest, EndedRanksGoAfterALastScrape) {
  for (int generation = 1; generation <= 100; ++generation) {
    metrics_.Started(FenceOf(generation, 0), 0);
    metrics_.Stepped(FenceOf(generation, 0), StepOf(1, 0.1));
    EXPECT_EQ(metrics_.LiveRanks(), 1);
    EXPECT_TRUE(metrics_.Ended(FenceOf(generation, 0)));
    EXPECT_FALSE(metrics_.Ended(FenceOf(generation, 0)));
    EXPECT_THAT(Page(metrics_), HasSubstr(absl::StrCat("generation=\"", generation, "\"")));
    clock_.Advance(absl::Minutes(1));
  }
  EXPECT_EQ(metrics_.LiveRanks(), 0);
  for (const auto& family : metrics_.Collect()) {
    EXPECT_LE(family.metric.size(), 4U * 5U) << family.name;
  }
  clock_.Advance(absl::Minutes(5));
  EXPECT_EQ(Page(metrics_), "");
  // Steps of one that is gone are no error.
  metrics_.Stepped(FenceOf(1, 0), StepOf(2, 0.1));
}

TEST_F(RankMetricsTest, EndedRanksGoWithoutAScrape) {
  for (int generation = 1; generation <= 100; ++generation) {
    metrics_.Started(FenceOf(generation, 0), 0);
    metrics_.Ended(FenceOf(generation, 0));
    clock_.Advance(absl::Minutes(1));
    EXPECT_LE(RankMetricsTestPeer::Kept(metrics_), 6U);
  }
}

TEST_F(RankMetricsTest, AJobOfTheSameNameIsAnother) {
  metrics_.Started(FenceOf(1, 0), 0);
  metrics_.Stepped(FenceOf(1, 0), StepOf(7, 0.1));
  lasp::v1::Fence later = FenceOf(1, 0);
  later.set_uid("another");
  metrics_.Started(later, 1);
  metrics_.Stepped(later, StepOf(2, 0.1));
  EXPECT_EQ(metrics_.LiveRanks(), 2);
  // One series a set of labels.
  const std::string labels =
      R"({generation="1",rank="0",training_job="projects/default/trainingJobs/job"})";
  const std::string page = Page(metrics_);
  EXPECT_THAT(page, HasSubstr("lasp_worker_current_step" + labels + " 2\n"));
  EXPECT_THAT(page, Not(HasSubstr("lasp_worker_current_step" + labels + " 7\n")));
  EXPECT_TRUE(metrics_.Ended(FenceOf(1, 0)));
  EXPECT_EQ(metrics_.LiveRanks(), 1);
  EXPECT_TRUE(metrics_.Ended(later));
}

TEST(AgentMetricsTest, CountsConnectionsAndEnds) {
  ManualClock clock;
  RankMetrics ranks("w1", &clock);
  AgentMetrics metrics(4, &ranks);
  for (int i = 0; i < 3; ++i) {
    metrics.SetConnected(true);
    metrics.SetConnected(false);
  }
  ranks.Started(FenceOf(1, 0), 0);
  metrics.RankEnded(137);
  const std::string page = Page(metrics);
  for (const char* line :
       {"lasp_agent_connected 0\n", "lasp_agent_reconnects_total 2\n",
        "lasp_agent_slots{state=\"busy\"} 1\n", "lasp_agent_slots{state=\"free\"} 3\n",
        "lasp_agent_ranks_ended_total{exit_code=\"137\"} 1\n"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

TEST(ExpositionTest, ServesWhatIsAdded) {
  const auto exposer = MetricsExposer::Create("127.0.0.1:0");
  LASP_ASSERT_OK(exposer);
  const auto process = std::make_shared<ProcessMetrics>("a-test");
  (*exposer)->Add(process);
  const std::string page = HttpGet((*exposer)->address(), "/metrics");
  EXPECT_THAT(page, HasSubstr("200 OK"));
  EXPECT_THAT(page, HasSubstr("lasp_build_info{component=\"a-test\","));
  for (const char* name :
       {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds",
        "process_max_fds", "process_threads", "process_start_time_seconds"}) {
    EXPECT_THAT(page, HasSubstr(absl::StrCat("\n", name, " ")));
  }
}

TEST(ExpositionTest, NamesATakenPortAndABadAddress) {
  const auto first = MetricsExposer::Create("127.0.0.1:0");
  LASP_ASSERT_OK(first);
  EXPECT_THAT(MetricsExposer::Create((*first)->address()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr((*first)->address())));
  for (const char* bad : {"here", "127.0.0.1", "127.0.0.1:70000", ":9464", "no.such.host.:0"}) {
    EXPECT_THAT(MetricsExposer::Create(bad),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(bad)));
  }
}

TEST(ExpositionTest, EndsAtOnce) {
  auto exposer = MetricsExposer::Create("127.0.0.1:0");
  LASP_ASSERT_OK(exposer);
  const absl::Duration start = SystemClock().Monotonic();
  exposer->reset();
  EXPECT_LT(SystemClock().Monotonic() - start, absl::Seconds(1));
}

}  // namespace
}  // namespace lasp::worker
