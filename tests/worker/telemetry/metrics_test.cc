// What the agent shows to Prometheus.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "proto/rpc/disk_metrics.h"
#include "proto/rpc/metrics_exposer.h"
#include "proto/rpc/process_metrics.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/agent/http_get.h"
#include "tests/worker/agent/manual_clock.h"
#include "worker/telemetry/agent_metrics.h"
#include "worker/telemetry/host_memory.h"
#include "worker/telemetry/model_flops.h"
#include "worker/telemetry/rank_metrics.h"

namespace lasp::worker {

class RankMetricsTestPeer {
 public:
  static size_t Kept(const RankMetrics& metrics) {
    MutexLock lock(&metrics.mutex_);
    return metrics.entries_.size();
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
  RankMetrics metrics_{"w1", &clock_, {.max_ranks_of_a_job = 4, .retention = absl::Minutes(5)}};
};

TEST_F(RankMetricsTest, HistogramsCountEveryStep) {
  metrics_.Started({.fence = FenceOf(1, 0), .slot = 2});
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
           "lasp_worker_info{" + labels + ",gpu_uuid=\"\",slot=\"2\",worker=\"w1\"} 1\n",
           "lasp_worker_steps_total{" + labels + "} 4\n",
       }) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

TEST_F(RankMetricsTest, PhasesAddUpToTheStep) {
  metrics_.Started({.fence = FenceOf(1, 0)});
  auto step = StepOf(1, 8);
  step.set_data_seconds(0.5);
  step.set_sp_wait_seconds_total(1);
  step.set_gradient_sync_wait_seconds_total(0.25);
  metrics_.Stepped(FenceOf(1, 0), step);
  // Totals that have grown: by the wait of the second step alone.
  step.set_sp_wait_seconds_total(3);
  step.set_gradient_sync_wait_seconds_total(0.5);
  metrics_.Stepped(FenceOf(1, 0), step);
  const std::string page = Page(metrics_);
  for (const auto& [phase, seconds] : std::map<std::string, std::string>{{"data", "1"},
                                                                         {"forward", "4"},
                                                                         {"backward", "0"},
                                                                         {"sp_wait", "3"},
                                                                         {"gradient_sync", "0.5"},
                                                                         {"optimizer", "0"},
                                                                         {"other", "7.5"}}) {
    EXPECT_THAT(page, HasSubstr(absl::StrCat("phase=\"", phase, "\"} ", seconds, "\n")));
  }
}

TEST_F(RankMetricsTest, FlopsAreThoseOfTheTokens) {
  metrics_.Started({.fence = FenceOf(1, 0), .gpu_uuid = "GPU-1", .model_flops_per_token = 10});
  metrics_.Stepped(FenceOf(1, 0), StepOf(3, 0.1));
  const std::string page = Page(metrics_);
  EXPECT_THAT(page, HasSubstr("gpu_uuid=\"GPU-1\""));
  EXPECT_THAT(page, HasSubstr("trainingJobs/job\"} 240\n"));
  // What is not known has no series.
  EXPECT_THAT(page, Not(HasSubstr("lasp_worker_peak_flops_per_second")));
  EXPECT_THAT(page, Not(HasSubstr("lasp_worker_memory_limit_bytes")));
}

TEST_F(RankMetricsTest, LivesUntilItsEnd) {
  metrics_.Started({.fence = FenceOf(1, 0)});
  EXPECT_THAT(Page(metrics_), Not(HasSubstr("lasp_worker_last_step_timestamp_seconds")));
  EXPECT_THAT(Page(metrics_), HasSubstr("lasp_worker_start_time_seconds"));
  const std::string running =
      R"(lasp_worker_running{generation="1",rank="0",training_job="projects/default/trainingJobs/job"} )";
  EXPECT_THAT(Page(metrics_), HasSubstr(running + "1\n"));
  metrics_.Ended(FenceOf(1, 0));
  EXPECT_THAT(Page(metrics_), HasSubstr(running + "0\n"));
}

TEST_F(RankMetricsTest, ALargeJobHasNoSeriesOfARank) {
  for (int rank = 0; rank < 3; ++rank) {
    metrics_.Started({.fence = FenceOf(1, rank),
                      .slot = rank,
                      .world_size = 5,
                      .model_flops_per_token = 2,
                      .memory_limit_bytes = 100});
    auto step = StepOf(7 + rank, 0.1);
    (*step.mutable_memory_bytes())["weights"] = 10;
    step.set_skipped_steps_total(1);
    if (rank == 0) {
      step.mutable_metrics()->set_loss(2.5);
    }
    metrics_.Stepped(FenceOf(1, rank), step);
    lasp::internal::v1::CheckpointTotals checkpoints;
    checkpoints.set_written(2);
    checkpoints.set_failed(1);
    checkpoints.set_bytes(1000);
    checkpoints.set_stall_seconds(0.25);
    checkpoints.set_write_seconds(1.5);
    metrics_.Checkpointed(FenceOf(1, rank), checkpoints);
  }
  metrics_.Ended(FenceOf(1, 2));
  const std::string page = Page(metrics_);
  EXPECT_THAT(page, Not(HasSubstr("rank=")));
  const std::string labels = R"({generation="1",training_job="projects/default/trainingJobs/job")";
  for (const char* line :
       {"lasp_worker_info%,worker=\"w1\"} 1\n", "lasp_worker_running%} 2\n",
        "lasp_worker_steps_total%} 3\n", "lasp_worker_tokens_total%} 192\n",
        "lasp_worker_model_flops_total%} 384\n", "lasp_worker_current_step%} 7\n",
        "lasp_worker_step_seconds_count%} 3\n", "lasp_worker_loss%} 2.5\n",
        "lasp_worker_memory_bytes%,use=\"weights\"} 30\n", "lasp_worker_memory_limit_bytes%} 300\n",
        "lasp_worker_skipped_steps_total%,reason=\"nonfinite\"} 1\n",
        "lasp_worker_phase_seconds_count%,phase=\"other\"} 3\n",
        "lasp_worker_checkpoints_total%} 6\n", "lasp_worker_checkpoint_failures_total%} 3\n",
        "lasp_worker_checkpoint_bytes_total%} 3000\n",
        "lasp_worker_checkpoint_stall_seconds_total%} 0.75\n",
        "lasp_worker_checkpoint_write_seconds_total%} 4.5\n"}) {
    EXPECT_THAT(page, HasSubstr(absl::StrReplaceAll(line, {{"%", labels}})));
  }
  // A later job of that name replaces all of it.
  lasp::v1::Fence later = FenceOf(1, 0);
  later.set_uid("another");
  metrics_.Started({.fence = later, .world_size = 5});
  EXPECT_THAT(Page(metrics_), HasSubstr("lasp_worker_steps_total" + labels + "} 0\n"));
}

// Twice the weights is a forward pass; a state's update and use are as many products as its size.
TEST(ModelFlopsTest, CountsProductsAndStates) {
  lasp::v1::ModelSpec model;
  model.set_hidden_size(8);
  model.set_heads(2);
  model.set_glu_size(16);
  model.set_vocab_size(10);
  model.set_layers(3);
  const double weights = 3 * (5 * 64 + 3 * 8 * 16) + 8 * 10;
  const double states = 3 * 2 * (2 * 4 * 4);
  EXPECT_EQ(ModelFlopsPerToken(model, 1000), 6 * (weights + states));
}

// Of the layers LLN LLN ... every third, here the last of 3: q and the output of 8 columns, k and v
// of 4, and 500 tokens seen on average, of which each costs two products.
TEST(ModelFlopsTest, CountsWhatSoftmaxLayersSee) {
  lasp::v1::ModelSpec model;
  model.set_hidden_size(8);
  model.set_heads(2);
  model.set_glu_size(16);
  model.set_vocab_size(10);
  model.set_layers(3);
  model.set_layer_pattern("LLN");
  model.set_kv_heads(1);
  const double linear = 2 * (5 * 64 + 2 * (2 * 4 * 4));
  const double softmax = 2 * 8 * 8 + 2 * 8 * 4 + 2 * 8 * 500;
  EXPECT_EQ(ModelFlopsPerToken(model, 999), 6 * (linear + softmax + 3 * 3 * 8 * 16 + 8 * 10));
}

TEST(ModelFlopsTest, KnowsTheGpusItRunsOn) {
  EXPECT_EQ(PeakFlopsPerSecond("NVIDIA H200"), 989.4e12);
  EXPECT_EQ(PeakFlopsPerSecond("NVIDIA H100 80GB HBM3"), 989.4e12);
  EXPECT_EQ(PeakFlopsPerSecond("NVIDIA H100 PCIe"), 756.5e12);
  EXPECT_EQ(PeakFlopsPerSecond("Tesla T4"), 0);
  EXPECT_EQ(PeakFlopsPerSecond(""), 0);
}

TEST(HostMemoryTest, IsThatOfTheMachineAtMost) {
  EXPECT_GT(HostMemoryBytes(), int64_t{1} << 20);
  EXPECT_LE(HostMemoryBytes(), int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE));
}

TEST(DiskMetricsTest, ShowsTheFolderSDisk) {
  const lasp::testing::TempDirectory folder;
  const std::string page = Page(DiskMetrics("a_folder", folder.path()));
  EXPECT_THAT(page, HasSubstr("\na_folder_free_bytes "));
  EXPECT_THAT(page, HasSubstr("\na_folder_size_bytes "));
  EXPECT_EQ(Page(DiskMetrics("a_folder", folder.Join("missing"))), "");
}

TEST_F(RankMetricsTest, MemoryIsByUse) {
  metrics_.Started({.fence = FenceOf(1, 0), .slot = 0});
  auto step = StepOf(1, 0.1);
  (*step.mutable_memory_bytes())["weights"] = 4096;
  (*step.mutable_memory_bytes())["states"] = 64;
  metrics_.Stepped(FenceOf(1, 0), step);
  const std::string page = Page(metrics_);
  EXPECT_THAT(page, HasSubstr("use=\"weights\"} 4096\n"));
  EXPECT_THAT(page, HasSubstr("use=\"states\"} 64\n"));
}

TEST_F(RankMetricsTest, LossIsThatOfRankZero) {
  metrics_.Started({.fence = FenceOf(1, 0), .slot = 0});
  metrics_.Started({.fence = FenceOf(1, 1), .slot = 1});
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
    metrics_.Started({.fence = FenceOf(generation, 0), .slot = 0});
    metrics_.Stepped(FenceOf(generation, 0), StepOf(1, 0.1));
    EXPECT_EQ(metrics_.LiveRanks(), 1);
    EXPECT_TRUE(metrics_.Ended(FenceOf(generation, 0)));
    EXPECT_FALSE(metrics_.Ended(FenceOf(generation, 0)));
    EXPECT_THAT(Page(metrics_), HasSubstr(absl::StrCat("generation=\"", generation, "\"")));
    clock_.Advance(absl::Minutes(1));
  }
  EXPECT_EQ(metrics_.LiveRanks(), 0);
  for (const auto& family : metrics_.Collect()) {
    EXPECT_LE(family.metric.size(), 7U * 5U) << family.name;
  }
  clock_.Advance(absl::Minutes(5));
  EXPECT_EQ(Page(metrics_), "");
  // Steps of one that is gone are no error.
  metrics_.Stepped(FenceOf(1, 0), StepOf(2, 0.1));
}

TEST_F(RankMetricsTest, EndedRanksGoWithoutAScrape) {
  for (int generation = 1; generation <= 100; ++generation) {
    metrics_.Started({.fence = FenceOf(generation, 0), .slot = 0});
    metrics_.Ended(FenceOf(generation, 0));
    clock_.Advance(absl::Minutes(1));
    EXPECT_LE(RankMetricsTestPeer::Kept(metrics_), 6U);
  }
}

TEST_F(RankMetricsTest, AJobOfTheSameNameIsAnother) {
  metrics_.Started({.fence = FenceOf(1, 0), .slot = 0});
  metrics_.Stepped(FenceOf(1, 0), StepOf(7, 0.1));
  lasp::v1::Fence later = FenceOf(1, 0);
  later.set_uid("another");
  metrics_.Started({.fence = later, .slot = 1});
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
  ranks.Started({.fence = FenceOf(1, 0), .slot = 0});
  metrics.RankEnded(137, 0);
  metrics.RankEnded(10, static_cast<int>(absl::StatusCode::kDeadlineExceeded));
  metrics.RankEnded(10, 4711);
  const std::string page = Page(metrics);
  for (const char* line :
       {"lasp_agent_connected 0\n", "lasp_agent_reconnects_total 2\n",
        "lasp_agent_slots{state=\"busy\"} 1\n", "lasp_agent_slots{state=\"free\"} 3\n",
        "lasp_agent_ranks_ended_total{exit_code=\"137\"} 1\n",
        "lasp_agent_rank_errors_total{code=\"DEADLINE_EXCEEDED\"} 1\n",
        "lasp_agent_rank_errors_total{code=\"UNKNOWN\"} 1\n"}) {
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
        "process_max_fds", "process_threads", "lasp_time_seconds", "process_start_time_seconds"}) {
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
