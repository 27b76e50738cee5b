// Tokens on a real port: every method of every service that is linked has its row and is judged by
// it; lists, watches and workers show what the token grants; streams end with their token.
#include <google/protobuf/descriptor.h>
#include <sys/stat.h>

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/resource_name.h"
#include "server/access_table.h"
#include "tests/server/services/fake_agent.h"
#include "tests/server/services/raw_call.h"
#include "tests/server/services/running_server.h"
#include "tests/server/services/stream_reader.h"
#include "tests/server/services/token_line.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::testing::HasSubstr;

constexpr char kReflection[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

// Of every service that this program could serve: ours, by their files, and gRPC's own.
std::set<std::string> LinkedMethods() {
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  std::set<std::string> methods = {kReflection, "/grpc.health.v1.Health/Check",
                                   "/grpc.health.v1.Health/Watch"};
  for (const char* file : {"training_job", "checkpoint", "metrics", "log", "event", "worker_admin",
                           "server", "audit", "backup", "worker"}) {
    const auto* descriptor = pool->FindFileByName(absl::StrCat("lasp/v1/", file, "_service.proto"));
    for (int s = 0; descriptor != nullptr && s < descriptor->service_count(); ++s) {
      const auto& service = *descriptor->service(s);
      for (int m = 0; m < service.method_count(); ++m) {
        methods.insert(absl::StrCat("/", service.full_name(), "/", service.method(m)->name()));
      }
    }
  }
  return methods;
}

class AccessTest : public ::testing::Test {
 protected:
  AccessTest() : server_(Options()) {}

  ServerOptions Options() {
    WriteTokens();
    ServerOptions options;
    options.credentials.token_file = folder_.Join("tokens");
    options.credentials.reload_interval = absl::Milliseconds(20);
    return options;
  }

  void WriteTokens(const std::string& without = "") {
    std::string text;
    for (const std::string& line :
         {TokenLine("root", "admin", "*"), TokenLine("ann", "editor", "default,nlp"),
          TokenLine("vic", "viewer", "default"), TokenLine("eve", "admin", "foreign"),
          TokenLine("old", "admin", "*", "2020-01-01T00:00:00Z")}) {
      text += !without.empty() && absl::StartsWith(line, without) ? "" : line;
    }
    WriteTokenFile(text);
  }

  void WriteTokenFile(const std::string& text) {
    folder_.Write("fresh", text);
    chmod(folder_.Join("fresh").c_str(), 0600);
    rename(folder_.Join("fresh").c_str(), folder_.Join("tokens").c_str());
  }

  std::shared_ptr<grpc::Channel> As(const std::string& token) {
    return NewChannel(server_.server().addresses().api_address, {.tls = {}, .token = token});
  }

  absl::Status Raw(const std::string& token, const std::string& method,
                   const std::string& request = "") {
    return RawCall(As(token), method, request).status();
  }

  absl::Status Create(const std::string& token, const std::string& project, const std::string& id) {
    auto request = RunningServer::CreateRequest(id);
    request.set_parent("projects/" + project);
    const auto jobs = v1::TrainingJobService::NewStub(As(token));
    return RunningServer::Call(jobs.get(), &v1::TrainingJobService::Stub::CreateTrainingJob,
                               request)
        .status();
  }

  const ::lasp::testing::TempDirectory folder_;
  RunningServer server_;
};

TEST_F(AccessTest, EveryLinkedMethodHasARow) {
  const std::set<std::string> linked = LinkedMethods();
  EXPECT_GT(linked.size(), 20u);
  for (const std::string& method : linked) {
    EXPECT_NE(FindAccessRule(method), nullptr) << method;
  }
  EXPECT_EQ(FindAccessRule("/lasp.v1.TrainingJobService/GetTrainingJobs"), nullptr);
  // Nothing is served of which the walk knows nothing.
  const auto served = RawCall(As("root"), kReflection, std::string("\x3a\x01*", 3));
  LASP_ASSERT_OK(served);
  for (const char* service :
       {"lasp.v1.TrainingJobService", "lasp.v1.CheckpointService", "lasp.v1.MetricsService",
        "lasp.v1.LogService", "lasp.v1.EventService", "lasp.v1.WorkerAdminService",
        "lasp.v1.ServerService", "lasp.v1.AuditService", "lasp.v1.BackupService"}) {
    EXPECT_THAT(*served, HasSubstr(service));
  }
  size_t count = 0;
  for (size_t at = served->find("lasp.v1."); at != std::string::npos;
       at = served->find("lasp.v1.", at + 1)) {
    ++count;
  }
  EXPECT_EQ(count, 9u);
}

TEST_F(AccessTest, EveryMethodIsJudgedBeforeItRuns) {
  for (const std::string& method : LinkedMethods()) {
    const AccessRule& rule = *FindAccessRule(method);
    if (rule.audience == Audience::kAnyone) {
      LASP_EXPECT_OK(Raw("", "/grpc.health.v1.Health/Check"));
      continue;
    }
    for (const char* token : {"", "mallory", "old"}) {
      EXPECT_EQ(Raw(token, method).code(), absl::StatusCode::kUnauthenticated)
          << method << " with '" << token << "'";
    }
    if (rule.scope == Scope::kProject) {
      // Each takes the resource in field 1, UpdateTrainingJob in field 1 of its field 1.
      const std::string name = "projects/default/trainingJobs/a";
      std::string request =
          absl::StrCat("\x0a", std::string(1, static_cast<char>(name.size())), name);
      if (absl::EndsWith(method, "UpdateTrainingJob")) {
        request = absl::StrCat("\x0a", std::string(1, static_cast<char>(request.size())), request);
      }
      EXPECT_EQ(ErrorReason(Raw("eve", method, request)), "PROJECT_NOT_GRANTED") << method;
      EXPECT_NE(ErrorReason(Raw("ann", method, request)), "PROJECT_NOT_GRANTED") << method;
      EXPECT_EQ(ErrorReason(Raw("vic", method, request)) == "ROLE_TOO_LOW",
                rule.role != Role::kViewer)
          << method;
      EXPECT_EQ(Raw("eve", method).code(), absl::StatusCode::kInvalidArgument) << method;
    }
  }
  EXPECT_EQ(Raw("eve", "/lasp.v1.WorkerAdminService/DrainWorker").code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Raw("", "/lasp.v1.Nothing/Nothing").code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Raw("eve", "/lasp.v1.Nothing/Nothing").code(), absl::StatusCode::kUnimplemented);
}

TEST_F(AccessTest, ARefusedCallChangesNothing) {
  EXPECT_EQ(Create("", "default", "a").code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Create("vic", "default", "a").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Create("eve", "default", "a").code(), absl::StatusCode::kPermissionDenied);
  // The last parent of a request is what counts, for the judge as for the method.
  auto request = RunningServer::CreateRequest("a");
  const std::string granted = "\x0a\x10projects/foreign";
  EXPECT_EQ(Raw("eve", "/lasp.v1.TrainingJobService/CreateTrainingJob",
                granted + request.SerializeAsString())
                .code(),
            absl::StatusCode::kPermissionDenied);
  LASP_EXPECT_OK(Create("ann", "default", "a"));
}

TEST_F(AccessTest, ListsShowWhatTheTokenGrants) {
  for (const char* project : {"default", "foreign", "nlp", "third"}) {
    LASP_ASSERT_OK(Create("root", project, "job"));
  }

  const struct {
    const char* token;
    std::set<std::string> seen;
  } kCases[] = {{"root", {"default", "foreign", "nlp", "third"}},
                {"ann", {"default", "nlp"}},
                {"eve", {"foreign"}}};

  for (const auto& user : kCases) {
    const auto jobs = v1::TrainingJobService::NewStub(As(user.token));
    for (const char* order : {"", "name"}) {
      v1::ListTrainingJobsRequest request;
      request.set_parent("projects/-");
      request.set_order_by(order);
      request.set_page_size(1);
      std::set<std::string> seen;
      do {
        const auto page = RunningServer::Call(
            jobs.get(), &v1::TrainingJobService::Stub::ListTrainingJobs, request);
        LASP_ASSERT_OK(page);
        for (const auto& job : page->training_jobs()) {
          seen.insert(ParseJobName(job.name())->project);
        }
        request.set_page_token(page->next_page_token());
      } while (!request.page_token().empty());
      EXPECT_EQ(seen, user.seen) << user.token;
    }
    grpc::ClientContext context;
    v1::WatchTrainingJobsRequest request;
    request.set_parent("projects/-");
    const auto watch = jobs->WatchTrainingJobs(&context, request);
    std::set<std::string> seen;
    v1::WatchTrainingJobsResponse event;
    while (watch->Read(&event) && !event.bookmark().snapshot_end()) {
      seen.insert(ParseJobName(event.updated().name())->project);
    }
    EXPECT_EQ(seen, user.seen) << user.token;
    context.TryCancel();
  }
}

TEST_F(AccessTest, AStreamEndsWithItsToken) {
  const auto jobs = v1::TrainingJobService::NewStub(As("ann"));
  const auto kept = v1::TrainingJobService::NewStub(As("vic"));
  v1::WatchTrainingJobsRequest request;
  request.set_parent("projects/default");
  grpc::ClientContext ann_context;
  grpc::ClientContext vic_context;
  const auto ann = jobs->WatchTrainingJobs(&ann_context, request);
  const auto vic = kept->WatchTrainingJobs(&vic_context, request);
  v1::WatchTrainingJobsResponse event;
  ASSERT_TRUE(ann->Read(&event));
  ASSERT_TRUE(vic->Read(&event));
  WriteTokens("ann");
  while (ann->Read(&event)) {
  }
  const absl::Status ended = FromGrpcStatus(ann->Finish());
  EXPECT_EQ(ended.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(ErrorReason(ended), "TOKEN_CHANGED");
  EXPECT_EQ(Create("ann", "default", "a").code(), absl::StatusCode::kUnauthenticated);
  LASP_ASSERT_OK(Create("root", "default", "a"));
  ASSERT_TRUE(vic->Read(&event));  // it goes on over the reload
  vic_context.TryCancel();
}

TEST_F(AccessTest, AStreamIsOfItsTokenWhicheverHasTheName) {
  const auto line_of = [](const std::string& name, const std::string& token) {
    return name + TokenLine(token, "editor", "default,nlp").substr(token.size());
  };
  const auto jobs = v1::TrainingJobService::NewStub(As("ann"));
  v1::WatchTrainingJobsRequest request;
  request.set_parent("projects/default");
  grpc::ClientContext context;
  const auto watch = jobs->WatchTrainingJobs(&context, request);
  v1::WatchTrainingJobsResponse event;
  ASSERT_TRUE(watch->Read(&event));
  WriteTokenFile(line_of("ann", "ann2") + line_of("ann-old", "ann"));
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (!Create("ann2", "default", "a").ok()) {
    ASSERT_LT(absl::Now(), deadline) << "the successor is not known";
    absl::SleepFor(absl::Milliseconds(10));
  }
  ASSERT_TRUE(watch->Read(&event));  // it goes on while the old token holds
  EXPECT_EQ(event.updated().name(), "projects/default/trainingJobs/a");
  WriteTokenFile(line_of("ann", "ann2"));
  while (watch->Read(&event)) {
  }
  EXPECT_EQ(ErrorReason(FromGrpcStatus(watch->Finish())), "TOKEN_CHANGED");
}

}  // namespace
}  // namespace lasp::server
