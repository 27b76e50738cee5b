// What a stranger finds: every method answers, health, reflection, server info, the metrics page.
#include <google/protobuf/descriptor.h>

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/protocol_range.h"
#include "tests/server/services/fake_agent.h"
#include "tests/server/services/raw_call.h"
#include "tests/server/services/running_server.h"
#include "tests/server/services/scrape.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::_;
using ::testing::HasSubstr;

class DiscoveryTest : public ::testing::Test {
 protected:
  std::shared_ptr<grpc::Channel> Channel(const std::string& address) { return NewChannel(address); }

  // The serving status of a service: 1 is SERVING.
  absl::StatusOr<int> Health(const std::string& address, const std::string& service) {
    std::string request;
    if (!service.empty()) {
      request = absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service);
    }
    auto answer = RawCall(Channel(address), "/grpc.health.v1.Health/Check", request);
    if (!answer.ok()) {
      return answer.status();
    }
    return answer->size() == 2 ? (*answer)[1] : 0;
  }

  RunningServer server_;
};

TEST_F(DiscoveryTest, EveryMethodOfTheContractAnswers) {
  const ServerAddresses& addresses = server_.server().addresses();
  int methods = 0;
  for (const char* file : {"training_job_service", "checkpoint_service", "metrics_service",
                           "log_service", "event_service", "worker_admin_service", "server_service",
                           "audit_service", "backup_service", "worker_service"}) {
    const auto* descriptor = google::protobuf::DescriptorPool::generated_pool()->FindFileByName(
        absl::StrCat("lasp/v1/", file, ".proto"));
    ASSERT_NE(descriptor, nullptr) << file;
    const auto& service = *descriptor->service(0);
    const bool worker_plane = service.name() == "WorkerService";
    for (int i = 0; i < service.method_count(); ++i) {
      const std::string method =
          absl::StrCat("/", service.full_name(), "/", service.method(i)->name());
      const auto answer = RawCall(
          Channel(worker_plane ? addresses.worker_address : addresses.api_address), method, "");
      if (!answer.ok()) {
        EXPECT_NE(answer.status().code(), absl::StatusCode::kUnknown) << method;
        EXPECT_NE(answer.status().code(), absl::StatusCode::kInternal) << method;
        EXPECT_FALSE(ErrorReason(answer.status()).empty()) << method << ": " << answer.status();
        EXPECT_NE(answer.status().code(), absl::StatusCode::kUnimplemented) << method;
      }
      // The other port does not serve it.
      EXPECT_EQ(RawCall(Channel(worker_plane ? addresses.api_address : addresses.worker_address),
                        method, "")
                    .status()
                    .code(),
                absl::StatusCode::kUnimplemented)
          << method;
      ++methods;
    }
  }
  EXPECT_GE(methods, 27);
}

TEST_F(DiscoveryTest, CheckpointsSayThatTheyAreNotThere) {
  LASP_ASSERT_OK(server_.Create("job"));
  v1::ListCheckpointsRequest request;
  request.set_parent("projects/default/trainingJobs/job");
  const auto answer = server_.Call(server_.checkpoints.get(),
                                   &v1::CheckpointService::Stub::ListCheckpoints, request);
  EXPECT_THAT(answer,
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("keeps no checkpoints")));
  EXPECT_EQ(ErrorReason(answer.status()), "CHECKPOINTS_UNAVAILABLE");
}

TEST_F(DiscoveryTest, GarbageIsRefusedAndServingGoesOn) {
  const auto answer = RawCall(server_.channel(), "/lasp.v1.TrainingJobService/GetTrainingJob",
                              "\xff\xff\xff garbage");
  EXPECT_FALSE(answer.ok());
  EXPECT_EQ(RawCall(server_.channel(), "/lasp.v1.NoService/None", "").status().code(),
            absl::StatusCode::kUnimplemented);
  LASP_EXPECT_OK(server_.Create("still-serving"));
}

TEST_F(DiscoveryTest, HealthIsServedOnEveryPort) {
  const ServerAddresses& addresses = server_.server().addresses();
  for (const char* service : {"", "readiness", "liveness"}) {
    const auto health = Health(addresses.health_address, service);
    LASP_ASSERT_OK(health);
    EXPECT_EQ(*health, 1) << service;
  }
  EXPECT_THAT(Health(addresses.health_address, "unheard-of"),
              StatusIs(absl::StatusCode::kNotFound, _));
  LASP_EXPECT_OK(Health(addresses.api_address, ""));
  LASP_EXPECT_OK(Health(addresses.worker_address, ""));
  // Health only.
  EXPECT_EQ(RawCall(Channel(addresses.health_address), "/lasp.v1.ServerService/GetServerInfo", "")
                .status()
                .code(),
            absl::StatusCode::kUnimplemented);
}

TEST_F(DiscoveryTest, ReflectionIsOnTheApiPortOnly) {
  const ServerAddresses& addresses = server_.server().addresses();
  const std::string method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  const std::string list_services("\x3a\x01*", 3);
  const auto answer = RawCall(Channel(addresses.api_address), method, list_services);
  LASP_ASSERT_OK(answer);
  EXPECT_THAT(*answer, HasSubstr("lasp.v1.TrainingJobService"));
  EXPECT_THAT(*answer, ::testing::Not(HasSubstr("lasp.v1.WorkerService")));
  for (const std::string& other : {addresses.worker_address, addresses.health_address}) {
    EXPECT_EQ(RawCall(Channel(other), method, list_services).status().code(),
              absl::StatusCode::kUnimplemented)
        << other;
  }
}

TEST_F(DiscoveryTest, ServerInfoNamesVersionsAndFeatures) {
  const auto info = server_.Call(server_.info.get(), &v1::ServerService::Stub::GetServerInfo,
                                 v1::GetServerInfoRequest());
  LASP_ASSERT_OK(info);
  EXPECT_EQ(info->version(), Version());
  EXPECT_EQ(info->api_versions(0), "lasp.v1");
  EXPECT_EQ(info->worker_protocol_version(), kWorkerProtocol.newest);
  EXPECT_GT(info->start_time().seconds(), 0);
  EXPECT_GE(info->time().seconds(), info->start_time().seconds());
  EXPECT_GT(info->store_disk_free_bytes(), 0);
  EXPECT_GE(info->store_disk_size_bytes(), info->store_disk_free_bytes());
  EXPECT_EQ(info->store_error(), "");
  EXPECT_FALSE(info->has_token_expire_time());
}

TEST_F(DiscoveryTest, TheMetricsPageHasEveryFamilyFromTheStart) {
  FakeAgent agent(server_.server().addresses().worker_address, "host-a", 2);
  ASSERT_TRUE(agent.Register());
  LASP_ASSERT_OK(server_.Create("counted", 4));
  const std::string page = Scrape(server_.server().addresses().metrics_address);
  for (const char* expected : {"lasp_build_info{",
                               "lasp_training_jobs{state=\"QUEUED\"} 1",
                               "lasp_training_jobs{state=\"RUNNING\"} 0",
                               "lasp_training_jobs_finished_total{outcome=\"FAILED\"} 0",
                               "lasp_training_job_queue_seconds_bucket",
                               "lasp_training_job_restarts_total{",
                               "lasp_workers{state=\"READY\"} 1",
                               "lasp_worker_slots{kind=\"CPU\",use=\"free\"} 2",
                               "lasp_worker_slots{kind=\"GPU\",use=\"occupied\"} 0",
                               "lasp_worker_last_heartbeat_timestamp_seconds{worker=\"host-a\"}",
                               "lasp_lease_expirations_total 0",
                               "lasp_fenced_messages_total 0",
                               "lasp_controller_queued_agent_bytes ",
                               "lasp_limit_refusals_total{limit=\"max_connections\"} 0",
                               "lasp_connections{port=\"worker\"} 1",
                               "lasp_watch_streams 0",
                               "lasp_log_streams 0",
                               "lasp_metrics_streams 0",
                               "lasp_task_pool_queued_tasks{pool=\"backup\"} 0",
                               "lasp_task_pool_queued_tasks{pool=\"export\"} 0",
                               "lasp_task_pool_queued_tasks{pool=\"watch\"} 0",
                               "lasp_training_jobs_oldest_queued_timestamp_seconds 1",
                               "lasp_data_dir_free_bytes ",
                               "lasp_data_dir_size_bytes ",
                               "lasp_time_seconds ",
                               "lasp_watch_evictions_total 0",
                               "lasp_store_write_seconds_bucket",
                               "lasp_store_read_seconds_bucket",
                               "lasp_event_log_sequence ",
                               "lasp_store_writable 1",
                               "lasp_store_last_backup_timestamp_seconds 0",
                               "lasp_store_backups_wanted 0",
                               "process_resident_memory_bytes ",
                               "process_open_fds ",
                               "process_cpu_seconds_total ",
                               "grpc_server_handling_seconds_bucket{"}) {
    EXPECT_THAT(page, HasSubstr(expected));
  }
  EXPECT_THAT(page, HasSubstr(R"(grpc_server_handled_total{grpc_code="OK",)"
                              R"(grpc_method="CreateTrainingJob",)"
                              R"(grpc_service="lasp.v1.TrainingJobService",grpc_type="unary"} 1)"));
  EXPECT_THAT(page,
              HasSubstr(R"(grpc_server_started_total{grpc_method="Connect",)"
                        R"(grpc_service="lasp.v1.WorkerService",grpc_type="bidi_stream"} 1)"));
  // promtool's rules that are easy to break: counters end in _total, every family has help.
  std::set<std::string> with_help;
  size_t types = 0;
  for (const auto& line : absl::StrSplit(page, '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() > 3 && words[1] == "HELP") {
      with_help.insert(words[2]);
    } else if (words.size() == 4 && words[1] == "TYPE") {
      ++types;
      EXPECT_TRUE(with_help.count(words[2]) > 0) << line;
      EXPECT_EQ(words[3] == "counter", absl::EndsWith(words[2], "_total")) << line;
    }
  }
  EXPECT_EQ(types, with_help.size());
  EXPECT_GT(types, 40U);
}

}  // namespace
}  // namespace lasp::server
