// What a caller of a server may not exceed: calls a second, connections, sizes. Each with its
// error, and room again for who stays below.
#include <arpa/inet.h>
#include <google/rpc/error_details.pb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/connection_acceptor.h"
#include "server/connection_table.h"
#include "tests/server/core/fake_clock.h"
#include "tests/server/services/raw_call.h"
#include "tests/server/services/running_server.h"
#include "tests/server/services/scrape.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::FakeClock;
using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

TEST(LimitsTest, CallsBeyondTheRateAreRefusedBeforeTheyRun) {
  ServerOptions options;
  options.max_calls_a_second = 5;
  RunningServer server(options);
  const auto ask = [&server] {
    return RunningServer::Call(server.info.get(), &v1::ServerService::Stub::GetServerInfo,
                               v1::GetServerInfoRequest())
        .status();
  };
  absl::Status refused;
  for (int i = 0; i < 100 && refused.ok(); ++i) {
    refused = ask();
  }
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("127.0.0.1")));
  EXPECT_EQ(ErrorReason(refused), "TOO_MANY_CALLS");
  EXPECT_EQ(ErrorReason(server.Create("job").status()), "TOO_MANY_CALLS");
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  absl::StatusOr<v1::TrainingJob> found = absl::UnknownError("");
  while (absl::Now() < deadline && !absl::IsNotFound(found.status())) {
    found = server.Get("job");
  }
  EXPECT_TRUE(absl::IsNotFound(found.status())) << found.status();
  EXPECT_GE(ScrapeValue(server.server().addresses().metrics_address,
                        "lasp_limit_refusals_total{limit=\"max_calls_a_second\"}"),
            2);
}

// A TCP connection to an address that a server says.
UniqueFd ConnectTo(const std::string& address) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  to.sin_port = htons(static_cast<uint16_t>(port));
  UniqueFd connection(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(connection.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  return connection;
}

// Whether the other end hangs up within `timeout`, whatever it says before.
bool IsHungUpOn(const UniqueFd& connection, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  pollfd watched = {.fd = connection.get(), .events = POLLIN, .revents = 0};
  char buffer[1'024];
  while (absl::Now() < deadline) {
    if (poll(&watched, 1, 100) > 0 && recv(connection.get(), buffer, sizeof buffer, 0) <= 0) {
      return true;
    }
  }
  return false;
}

TEST(LimitsTest, AHostHasSoManyConnections) {
  ServerOptions options;
  options.connections.a_host = 4;
  RunningServer server(options);
  LASP_ASSERT_OK(server.Create("before"));  // over the first
  const std::string& address = server.server().addresses().api_address;
  std::vector<UniqueFd> open;
  open.reserve(3);
  for (int i = 0; i < 3; ++i) {
    open.push_back(ConnectTo(address));
  }
  EXPECT_TRUE(IsHungUpOn(ConnectTo(address), absl::Seconds(10)));
  for (const UniqueFd& connection : open) {
    EXPECT_FALSE(IsHungUpOn(connection, absl::Milliseconds(1)));
  }
  LASP_EXPECT_OK(server.Create("meanwhile"));
  const std::string& metrics = server.server().addresses().metrics_address;
  EXPECT_EQ(ScrapeValue(metrics, "lasp_connections{port=\"api\"}"), 4);
  EXPECT_GE(ScrapeValue(metrics, "lasp_limit_refusals_total{limit=\"max_connections_a_host\"}"), 1);
  open.clear();
  // Room again, once gRPC has seen the ends.
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  bool stays = false;
  while (!stays && absl::Now() < deadline) {
    stays = !IsHungUpOn(ConnectTo(address), absl::Milliseconds(300));
  }
  EXPECT_TRUE(stays);
}

// Also one whose calls are of a method that is not served, on a port without tokens.
TEST(LimitsTest, AConnectionThatBeginsCallsWithoutEndIsHungUpOn) {
  ServerOptions options;
  options.connections.calls_a_second = 20;
  options.connections.flood_ban = absl::Seconds(1);
  RunningServer server(options);
  // HTTP/2 by hand: its preface, SETTINGS, and calls that are reset as soon as they have begun.
  const std::string greeting("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
  const std::string headers(
      "\x83\x86\x00\x05:path\x02/x\x00\x0a:authority\x01x\x00\x0c"
      "content-type\x10"
      "application/grpc\x00\x02te\x08trailers",
      70);
  for (const std::string& address :
       {server.server().addresses().api_address, server.server().addresses().health_address}) {
    const UniqueFd flooding = ConnectTo(address);
    std::string sent = greeting;
    for (int stream = 1; stream <= 2 * 200; stream += 2) {
      const char id[] = {0, 0, static_cast<char>(stream >> 8), static_cast<char>(stream & 255)};
      sent += std::string({0, 0, static_cast<char>(headers.size()), 1, 4}) + std::string(id, 4);
      sent += headers;
      sent += std::string({0, 0, 4, 3, 0}) + std::string(id, 4) + std::string("\0\0\0\x08", 4);
    }
    EXPECT_GT(send(flooding.get(), sent.data(), sent.size(), MSG_NOSIGNAL), 0);
    EXPECT_TRUE(IsHungUpOn(flooding, absl::Seconds(10))) << address;
    EXPECT_TRUE(IsHungUpOn(ConnectTo(address), absl::Seconds(10))) << address;
  }
  const std::string& metrics = server.server().addresses().metrics_address;
  EXPECT_EQ(
      ScrapeValue(metrics, "lasp_limit_refusals_total{limit=\"max_connection_calls_a_second\"}"),
      2);
  EXPECT_GE(ScrapeValue(metrics, "lasp_limit_refusals_total{limit=\"flood_ban\"}"), 2);
}

// Headers that never end: gRPC would take them forever.
TEST(LimitsTest, AConnectionThatSendsWithoutBeginningACallIsHungUpOn) {
  ServerOptions options;
  options.max_message_bytes = 100'000;
  options.connections.flood_ban = absl::Minutes(1);
  RunningServer server(options);
  const std::string& address = server.server().addresses().api_address;
  const UniqueFd flooding = ConnectTo(address);
  const timeval limit{.tv_sec = 2, .tv_usec = 0};
  setsockopt(flooding.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  std::string sent("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
  sent += std::string("\0\0\1\1\0\0\0\0\1\x83", 10);  // HEADERS of a stream, not their end
  // CONTINUATION: a header of 4,000 bytes.
  const std::string more =
      std::string("\0\x0f\xa6\x09\0\0\0\0\1\0\1x\x7f\xa1\x1e", 15) + std::string(4'000, 'y');
  size_t bytes = 0;
  bool open = true;
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (open && absl::Now() < deadline) {
    sent += more;
    open = send(flooding.get(), sent.data(), sent.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(sent.size());
    bytes += sent.size();
    sent.clear();
  }
  EXPECT_FALSE(open);
  EXPECT_GT(bytes, 400'000U);
  EXPECT_TRUE(IsHungUpOn(ConnectTo(address), absl::Seconds(1)));
  EXPECT_GE(ScrapeValue(server.server().addresses().metrics_address,
                        "lasp_limit_refusals_total{limit=\"max_message_bytes\"}"),
            1);
}

TEST(LimitsTest, ASilentConnectionIsHungUpOn) {
  ServerOptions options;
  options.handshake_timeout = absl::Seconds(1);
  options.idle_timeout = absl::Seconds(1);
  RunningServer server(options);
  LASP_ASSERT_OK(server.Create("job"));
  const std::string& address = server.server().addresses().api_address;
  const UniqueFd silent = ConnectTo(address);
  EXPECT_TRUE(IsHungUpOn(silent, absl::Seconds(15)));
  // One that greets (HTTP/2's preface and empty SETTINGS) and then makes no call.
  const UniqueFd idle = ConnectTo(address);
  const std::string greeting("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
  ASSERT_EQ(send(idle.get(), greeting.data(), greeting.size(), 0), 33);
  EXPECT_TRUE(IsHungUpOn(idle, absl::Seconds(30)));
  // Whoever calls again connects again.
  LASP_EXPECT_OK(server.Get("job"));
}

TEST(ConnectionAcceptorTest, ListensOnAllThatANameStandsFor) {
  FakeClock clock;
  ConnectionTable table({}, &clock, nullptr);
  for (const char* host : {"127.0.0.1", "localhost", "0.0.0.0", "[::]"}) {
    auto acceptor = ConnectionAcceptor::Listen("api_address", {host, 0});
    if (!acceptor.ok() && host == std::string("[::]")) {
      continue;  // a machine without IPv6
    }
    LASP_ASSERT_OK(acceptor);
    std::atomic<int> taken = 0;
    (*acceptor)->Start(&table, absl::Seconds(7), [&taken](int /*listener*/, UniqueFd connection) {
      int milliseconds = 0;
      socklen_t size = sizeof milliseconds;
      getsockopt(connection.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, &size);
      EXPECT_EQ(milliseconds, 7'000);
      ++taken;
    });
    const UniqueFd caller = ConnectTo(absl::StrCat("x:", (*acceptor)->port()));
    EXPECT_TRUE(IsHungUpOn(caller, absl::Seconds(10))) << host;
    EXPECT_EQ(taken, 1) << host;
    // Exclusively.
    EXPECT_EQ(ErrorReason(
                  ConnectionAcceptor::Listen("api_address", {host, (*acceptor)->port()}).status()),
              "PORT_IN_USE");
    (*acceptor)->Stop();
  }
  EXPECT_EQ(
      ErrorReason(ConnectionAcceptor::Listen("api_address", {"no.such.host.invalid", 0}).status()),
      "CANNOT_LISTEN");
}

TEST(LimitsTest, ARequestIsOfABoundedSize) {
  ServerOptions options;
  options.max_message_bytes = 100'000;
  RunningServer server(options);
  // Of a method that parses its request itself, and of one whose request gRPC parses.
  auto create = RunningServer::CreateRequest("job");
  create.mutable_training_job()->set_display_name(std::string(110'000, 'a'));
  v1::UpdateTrainingJobRequest update;
  update.mutable_training_job()->set_name(RunningServer::NameOf("job"));
  update.mutable_training_job()->set_display_name(std::string(110'000, 'a'));
  for (const absl::Status& refused :
       {server.Create(create).status(),
        RunningServer::Call(server.jobs.get(), &v1::TrainingJobService::Stub::UpdateTrainingJob,
                            update)
            .status()}) {
    EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                  HasSubstr("at most 100000, as the coordinator's")));
    EXPECT_EQ(ErrorReason(refused), "MESSAGE_TOO_LARGE");
  }
  // What is far larger gRPC does not take at all.
  create.mutable_training_job()->set_display_name(std::string(300'000, 'a'));
  EXPECT_EQ(server.Create(create).status().code(), absl::StatusCode::kResourceExhausted);
  create.mutable_training_job()->set_display_name("a");
  LASP_EXPECT_OK(server.Create(create));
}

// A few kilobytes could be gigabytes.
TEST(LimitsTest, ACompressedRequestIsRefused) {
  RunningServer server;
  auto request = RunningServer::CreateRequest("job");
  request.mutable_training_job()->set_display_name(std::string(1 << 20, 'a'));
  grpc::ClientContext context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  v1::TrainingJob job;
  const grpc::Status refused = server.jobs->CreateTrainingJob(&context, request, &job);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNIMPLEMENTED) << refused.error_message();
  EXPECT_THAT(refused.error_message(), HasSubstr("gzip"));
  LASP_EXPECT_OK(server.Create("job"));
}

TEST(LimitsTest, LabelsAreBounded) {
  ServerOptions options;
  options.labels = {.count = 2, .characters = 5};
  RunningServer server(options);
  auto request = RunningServer::CreateRequest("job");
  auto& labels = *request.mutable_training_job()->mutable_labels();
  labels["a"] = "12345";
  labels["b"] = "123456";
  const absl::Status long_value = server.Create(request).status();
  EXPECT_THAT(long_value, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("labels.b")));
  labels["b"] = "";
  labels["c"] = "";
  EXPECT_THAT(server.Create(request).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--max_labels")));
  labels.erase("c");
  LASP_EXPECT_OK(server.Create(request));
}

}  // namespace
}  // namespace lasp::server
