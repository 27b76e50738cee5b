// lasp-server as a process: its flags, its exclusiveness, its signals, and a death from which its
// successor takes over.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/server/services/fake_agent.h"
#include "tests/server/services/running_server.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::TempDirectory;
using ::testing::HasSubstr;
using v1::ConnectRequest;
using v1::ConnectResponse;
using v1::TrainingJob;

// One run of the program; killed at destruction.
class Process {
 public:
  Process(const std::vector<std::string>& flags, const std::string& output_prefix)
      : out_(output_prefix + ".out"), err_(output_prefix + ".err") {
    std::vector<std::string> words = {LASP_SERVER_BINARY};
    words.insert(words.end(), flags.begin(), flags.end());
    std::vector<char*> argv;
    argv.reserve(words.size());
    for (std::string& word : words) {
      argv.push_back(word.data());
    }
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      const int out = open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      const int err = open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      dup2(out, STDOUT_FILENO);
      dup2(err, STDERR_FILENO);
      execv(argv[0], argv.data());
      _exit(127);
    }
  }

  ~Process() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // The exit code, or 128 + the signal; -1 if it has not ended in time.
  int AwaitExit(absl::Duration timeout = absl::Seconds(20)) {
    const absl::Time deadline = absl::Now() + timeout;
    int status = 0;
    while (waitpid(pid_, &status, WNOHANG) == 0) {
      if (absl::Now() > deadline) {
        return -1;
      }
      absl::SleepFor(absl::Milliseconds(10));
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  // The JSON line it prints once it serves; null if it does not in time.
  nlohmann::json AwaitAddresses(absl::Duration timeout = absl::Seconds(20)) const {
    const absl::Time deadline = absl::Now() + timeout;
    while (absl::Now() < deadline) {
      const std::string line = Output();
      if (!line.empty() && line.back() == '\n') {
        return nlohmann::json::parse(line, nullptr, false);
      }
      absl::SleepFor(absl::Milliseconds(10));
    }
    ADD_FAILURE() << "never served: " << Errors();
    return nullptr;
  }

  std::string Output() const { return ReadAll(out_); }

  std::string Errors() const { return ReadAll(err_); }

  pid_t pid() const { return pid_; }

 private:
  static std::string ReadAll(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }

  const std::string out_;
  const std::string err_;
  pid_t pid_ = -1;
};

class ServerProgramTest : public ::testing::Test {
 protected:
  ServerProgramTest() { folder_.Write("corpus.txt", std::string(100'000, 'x')); }

  std::unique_ptr<Process> Run(const std::vector<std::string>& flags) {
    return std::make_unique<Process>(flags, folder_.Join(absl::StrCat("run-", ++runs_)));
  }

  std::vector<std::string> Flags(const std::string& api = "127.0.0.1:0",
                                 const std::string& worker = "127.0.0.1:0") {
    return {"--data_dir=" + folder_.Join("data"), "--api_address=" + api,
            "--worker_address=" + worker,         "--health_address=127.0.0.1:0",
            "--metrics_address=127.0.0.1:0",      "--console_address=127.0.0.1:0",
            "--path_roots=" + folder_.path()};
  }

  const TempDirectory folder_;
  int runs_ = 0;
};

TEST_F(ServerProgramTest, HelpAndVersionAreOnStdout) {
  const auto help = Run({"--help"});
  EXPECT_EQ(help->AwaitExit(), 0);
  for (const char* flag :
       {"--data_dir", "--api_address", "--worker_address", "--health_address", "--metrics_address",
        "--console_address", "--path_roots", "--retain_finished", "--tls_cert", "--tls_key",
        "--tls_client_ca", "--token_file", "--log_level"}) {
    EXPECT_THAT(help->Output(), HasSubstr(flag));
  }
  const auto version = Run({"--version"});
  EXPECT_EQ(version->AwaitExit(), 0);
  EXPECT_THAT(version->Output(), HasSubstr(absl::StrCat("lasp-server ", Version())));
}

TEST_F(ServerProgramTest, WrongUsageNamesTheFlagAndExitsTwo) {
  const std::string data = "--data_dir=" + folder_.Join("data");

  const struct {
    std::vector<std::string> flags;
    std::string told;
  } kCases[] = {
      {{}, "--data_dir"},
      {{data, "--api_adress=x"}, "--api_adress"},
      {{data, "--api_address=7070"}, "--api_address"},
      {{data, "--api_address"}, "--api_address"},
      {{data, "--api_address=0.0.0.0:0"}, "--token_file"},
      {{data, "--tls_cert=a", "--tls_key=b"}, "--tls_client_ca"},
      {{data, "--token_file=/no/such/file"}, "--token_file"},
      {{data, "--worker_address=192.0.2.1:7071"}, "--worker_address"},
      {{data, "--metrics_address=:1"}, "--metrics_address"},
      {{data, "--console_address=7072"}, "--console_address"},
      {{data, "--console_address=0.0.0.0:0"}, "--token_file"},
      {{data, "--health_address=localhost:99999"}, "--health_address"},
      {{data, "--retain_finished=soon"}, "--retain_finished"},
      {{data, "--retain_finished=-1h"}, "--retain_finished"},
      {{data, "--retain_audit=0"}, "--retain_audit"},
      {{data, "--max_audit_records=10"}, "--max_audit_records"},
      {{data, "--max_backups=0"}, "--max_backups"},
      {{data, "--restore_from=/no/such/file"}, "/no/such/file"},
      {{data, "--replace_store"}, "--restore_from"},
      {{data, "--path_roots=/no/such/folder"}, "--path_roots"},
      {{data, "--allow_plaintext"}, "--allow_plaintext"},
      {{data, "--max_queued_jobs=0"}, "--max_queued_jobs"},
      {{data, "--max_streams_a_principal=0"}, "--max_streams_a_principal"},
      {{data, "--max_log_bytes_a_rank=1"}, "--max_log_bytes_a_rank"},
      {{data, "--max_log_bytes=-1"}, "--max_log_bytes"},
      {{data, "--slow_reader_limit=0"}, "--slow_reader_limit"},
      {{data, "--handshake_timeout=0"}, "--handshake_timeout"},
      {{data, "--idle_timeout=25h"}, "--idle_timeout"},
      {{data, "--max_calls_a_second=0"}, "--max_calls_a_second"},
      {{data, "--max_connection_calls_a_second=0"}, "--max_connection_calls_a_second"},
      {{data, "--flood_ban=-1s"}, "--flood_ban"},
      {{data, "--max_connections=0"}, "--max_connections"},
      {{data, "--max_connections_a_host=0"}, "--max_connections_a_host"},
      {{data, "--max_connections_a_principal=-1"}, "--max_connections_a_principal"},
      {{data, "--max_buffer_bytes=1"}, "--max_buffer_bytes"},
      {{data, "--max_message_bytes=1"}, "--max_message_bytes"},
      {{data, "--max_message_bytes=1073741824"}, "is above 1073741823"},
      {{data, "--max_labels=-1"}, "--max_labels"},
      {{data, "--max_label_characters=0"}, "--max_label_characters"},
      {{data, "--log_level=loud"}, "--log_level"},
      {{data, "serve"}, "serve"},
  };

  for (const auto& wrong : kCases) {
    const auto process = Run(wrong.flags);
    EXPECT_EQ(process->AwaitExit(), 2) << wrong.told;
    EXPECT_THAT(process->Errors(), HasSubstr(wrong.told));
    EXPECT_EQ(process->Output(), "");
  }
}

TEST_F(ServerProgramTest, ServesUntilItIsToldToStop) {
  for (const int signal_number : {SIGTERM, SIGINT}) {
    const auto process = Run(Flags());
    const nlohmann::json addresses = process->AwaitAddresses();
    for (const char* key :
         {"api_address", "worker_address", "health_address", "metrics_address", "data_dir"}) {
      EXPECT_TRUE(addresses.contains(key)) << key;
    }
    kill(process->pid(), signal_number);
    EXPECT_EQ(process->AwaitExit(), 0);
  }
}

TEST_F(ServerProgramTest, ASecondServerIsRefusedByName) {
  const auto first = Run(Flags());
  const nlohmann::json addresses = first->AwaitAddresses();
  const auto same_folder = Run(Flags());
  EXPECT_EQ(same_folder->AwaitExit(), 1);
  EXPECT_THAT(same_folder->Errors(), HasSubstr(folder_.Join("data")));
  EXPECT_THAT(same_folder->Errors(), HasSubstr(absl::StrCat("pid ", first->pid())));

  for (const char* key : {"api_address", "worker_address", "health_address", "metrics_address"}) {
    std::vector<std::string> flags = Flags();
    flags[0] = "--data_dir=" + folder_.Join("other");
    flags.push_back(absl::StrCat("--", key, "=", addresses[key].get<std::string>()));
    const auto same_port = Run(flags);
    EXPECT_EQ(same_port->AwaitExit(), 1) << key;
    EXPECT_THAT(same_port->Errors(), HasSubstr(absl::StrCat("--", key)));
    EXPECT_THAT(same_port->Errors(), HasSubstr(absl::StrCat("held by pid ", first->pid())));
    EXPECT_EQ(same_port->Output(), "");
  }
}

TEST_F(ServerProgramTest, AKilledServersSuccessorAdoptsTheRunningRanks) {
  auto server = Run(Flags());
  nlohmann::json addresses = server->AwaitAddresses();
  const std::string api = addresses["api_address"];
  const std::string worker = addresses["worker_address"];
  const auto get = [&api]() -> absl::StatusOr<TrainingJob> {
    const auto stub = v1::TrainingJobService::NewStub(NewChannel(api));
    v1::GetTrainingJobRequest request;
    request.set_name("projects/default/trainingJobs/adopted");
    return RunningServer::Call(stub.get(), &v1::TrainingJobService::Stub::GetTrainingJob, request);
  };
  const auto await_state = [&get](TrainingJob::State state) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    absl::StatusOr<TrainingJob> job;
    do {
      job = get();
      if (job.ok() && job->state() == state) {
        return *job;
      }
      absl::SleepFor(absl::Milliseconds(20));
    } while (absl::Now() < deadline);
    ADD_FAILURE() << (job.ok() ? job->ShortDebugString() : job.status().ToString());
    return TrainingJob();
  };

  auto agent = std::make_unique<FakeAgent>(worker, "host-a", 1);
  ASSERT_TRUE(agent->Register());
  const auto stub = v1::TrainingJobService::NewStub(NewChannel(api));
  LASP_ASSERT_OK(RunningServer::Call(stub.get(), &v1::TrainingJobService::Stub::CreateTrainingJob,
                                     RunningServer::CreateRequest("adopted")));
  const auto assignment = agent->Await(ConnectResponse::kAssignment);
  ASSERT_TRUE(assignment.has_value());
  const v1::Fence fence = assignment->assignment().fence();
  ConnectRequest address;
  *address.mutable_rank_address()->mutable_fence() = fence;
  address.mutable_rank_address()->set_address("a");
  agent->Send(address);
  ConnectRequest ready;
  *ready.mutable_rank_ready()->mutable_fence() = fence;
  agent->Send(ready);
  ASSERT_TRUE(agent->Await(ConnectResponse::kStart).has_value());
  ConnectRequest steps;
  *steps.mutable_step_reports()->mutable_fence() = fence;
  for (int i = 1; i <= 3; ++i) {
    v1::StepMetrics* row = steps.mutable_step_reports()->add_steps();
    row->set_step(i);
    row->set_loss(3);
    row->set_generation(1);
  }
  ASSERT_TRUE(agent->AwaitAck(agent->Send(steps)));
  await_state(TrainingJob::STATE_RUNNING);

  kill(server->pid(), SIGKILL);
  EXPECT_EQ(server->AwaitExit(), 128 + SIGKILL);
  EXPECT_FALSE(agent->AwaitEnd().ok());
  // The same folder and the same ports at once: nothing of the dead process is in the way.
  server = Run(Flags(api, worker));
  EXPECT_EQ(server->AwaitAddresses()["api_address"], api);
  const auto kept = get();
  LASP_ASSERT_OK(kept);
  EXPECT_EQ(kept->generation(), 1);

  // The agent comes back, the same process, with its rank alive; then the rank finishes.
  v1::Hello hello = agent->NewHello();
  auto* rank = hello.add_ranks();
  *rank->mutable_fence() = fence;
  rank->set_phase(v1::RankStatus::PHASE_TRAINING);
  rank->set_step(5);
  FakeAgent back(worker, "host-a", 1);
  back.SendHello(hello);
  ASSERT_TRUE(back.Await(ConnectResponse::kWelcome).has_value());
  ConnectRequest rest;
  *rest.mutable_step_reports()->mutable_fence() = fence;
  for (int i = 4; i <= 10; ++i) {
    v1::StepMetrics* row = rest.mutable_step_reports()->add_steps();
    row->set_step(i);
    row->set_loss(2);
    row->set_generation(1);
  }
  back.Send(rest);
  ConnectRequest exited;
  *exited.mutable_rank_exited()->mutable_fence() = fence;
  exited.mutable_rank_exited()->set_step(10);
  ASSERT_TRUE(back.AwaitAck(back.Send(exited)));
  const TrainingJob done = await_state(TrainingJob::STATE_SUCCEEDED);
  EXPECT_EQ(done.generation(), 1);
  EXPECT_EQ(done.restart_count(), 0);
  const auto metrics = v1::MetricsService::NewStub(NewChannel(api));
  v1::QueryMetricsRequest query;
  query.set_name(done.name());
  const auto rows =
      RunningServer::Call(metrics.get(), &v1::MetricsService::Stub::QueryMetrics, query);
  LASP_ASSERT_OK(rows);
  EXPECT_EQ(rows->steps_size(), 10);
}

}  // namespace
}  // namespace lasp::server
