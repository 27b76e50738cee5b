// What a caller may not exceed: calls a second, connections, sizes. Each with its error, and room
// again for who stays below.
#include <arpa/inet.h>
#include <google/rpc/error_details.pb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/call_rate.h"
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

// ---- calls --------------------------------------------------------------------------------------

TEST(CallRateTest, GivesEachPrincipalItsOwnCalls) {
  FakeClock clock;
  CallRate rate(&clock, 10);
  for (int i = 0; i < 20; ++i) {
    LASP_EXPECT_OK(rate.Admit("ann"));
  }
  const absl::Status refused = rate.Admit("ann");
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("ann calls more often than 10 times a second")));
  EXPECT_EQ(ErrorReason(refused), "TOO_MANY_CALLS");
  EXPECT_TRUE(refused.GetPayload("type.googleapis.com/google.rpc.RetryInfo").has_value());
  LASP_EXPECT_OK(rate.Admit("bob"));

  clock.Advance(absl::Milliseconds(110));
  LASP_EXPECT_OK(rate.Admit("ann"));
  EXPECT_FALSE(rate.Admit("ann").ok());
  clock.Advance(absl::Hours(1));
  for (int i = 0; i < 20; ++i) {
    LASP_EXPECT_OK(rate.Admit("ann"));
  }
  EXPECT_FALSE(rate.Admit("ann").ok());
}

TEST(CallRateTest, RemembersSoManyPrincipals) {
  FakeClock clock;
  CallRate rate(&clock, 1);
  for (size_t i = 0; i < CallRate::kMaxPrincipals + 100; ++i) {
    LASP_EXPECT_OK(rate.Admit(absl::StrCat("host-", i)));
  }
  EXPECT_LE(rate.size(), CallRate::kMaxPrincipals);
  clock.Advance(absl::Seconds(10));
  LASP_EXPECT_OK(rate.Admit("another"));
  EXPECT_EQ(rate.size(), 1U);
}

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

// ---- connections --------------------------------------------------------------------------------

// A socket, connected to nobody.
UniqueFd NewSocket() { return UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

class ConnectionTableTest : public ::testing::Test {
 protected:
  std::string PeerOf(int host, int port) { return absl::StrCat("ipv4:10.0.0.", host, ":", port); }

  FakeClock clock_;
  std::vector<std::string> refused_;
  ConnectionTable table_{{.all = 5,
                          .a_host = 3,
                          .a_principal = 2,
                          .calls_a_second = 10,
                          .flood_ban = absl::Seconds(7)},
                         &clock_,
                         [this](const char* flag) { refused_.emplace_back(flag); }};
};

TEST_F(ConnectionTableTest, BoundsAHostAndAll) {
  std::vector<UniqueFd> open;
  const auto connect = [&](int host, int port) {
    open.push_back(NewSocket());
    return table_.Add(open.back().get(), PeerOf(host, port));
  };
  for (int port = 1; port <= 3; ++port) {
    LASP_EXPECT_OK(connect(1, port));
  }
  const absl::Status refused = connect(1, 4);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("ipv4:10.0.0.1 has 3 connections")));
  EXPECT_EQ(ErrorReason(refused), "TOO_MANY_CONNECTIONS");
  LASP_EXPECT_OK(connect(2, 1));
  LASP_EXPECT_OK(connect(3, 1));
  EXPECT_THAT(connect(4, 1),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("--max_connections ")));
  EXPECT_EQ(refused_, (std::vector<std::string>{"max_connections_a_host", "max_connections"}));

  // One that has ended makes room, also where its descriptor's number is another's by now.
  clock_.Advance(absl::Seconds(1));
  open.erase(open.begin(), open.begin() + 2);
  const UniqueFd other = NewSocket();
  LASP_EXPECT_OK(connect(1, 5));
  EXPECT_EQ(table_.size(), 4U);
  open.clear();
  clock_.Advance(absl::Seconds(1));
  table_.Sweep();
  EXPECT_EQ(table_.size(), 0U);
}

TEST_F(ConnectionTableTest, PartsComeRoundToEveryConnection) {
  ConnectionTable table({.all = 1'000, .a_host = 1'000}, &clock_, [](const char*) {});
  std::vector<UniqueFd> open;
  const auto connect = [&](int port) {
    open.push_back(NewSocket());
    return table.Add(open.back().get(), PeerOf(1, port));
  };
  for (int port = 1; port <= 300; ++port) {
    LASP_ASSERT_OK(connect(port));
  }
  // Every third ends.
  for (size_t i = 0; i < 300; i += 3) {
    open[i] = UniqueFd();
  }
  absl::Duration took;
  while (table.size() > 200 && took < absl::Seconds(1)) {
    const size_t before = table.size();
    took += table.SweepPart();
    EXPECT_LE(before - table.size(), 30U);  // those of a quarter
  }
  EXPECT_EQ(table.size(), 200U);
  EXPECT_LE(took, absl::Milliseconds(350));  // fewer, and so larger parts towards the end
  // Few are looked at all at once, and from the beginning again.
  open.clear();
  while (table.size() > 0) {
    table.SweepPart();
  }
  LASP_ASSERT_OK(connect(1));
  EXPECT_EQ(table.SweepPart(), absl::Milliseconds(250));
  EXPECT_EQ(table.size(), 1U);
}

TEST_F(ConnectionTableTest, BoundsWhatATokenCallsOver) {
  std::vector<UniqueFd> open;
  for (int host = 1; host <= 3; ++host) {
    open.push_back(NewSocket());
    LASP_EXPECT_OK(table_.Add(open.back().get(), PeerOf(host, 1)));
  }
  for (int again = 0; again < 2; ++again) {
    LASP_EXPECT_OK(table_.Use(PeerOf(1, 1), "ann"));
    LASP_EXPECT_OK(table_.Use(PeerOf(2, 1), "ann"));
  }
  const absl::Status refused = table_.Use(PeerOf(3, 1), "ann");
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("--max_connections_a_principal")));
  EXPECT_EQ(ErrorReason(refused), "TOO_MANY_CONNECTIONS");
  LASP_EXPECT_OK(table_.Use(PeerOf(3, 1), "bob"));
  LASP_EXPECT_OK(table_.Use("ipv4:10.0.0.9:9", "ann"));  // not in the table
  clock_.Advance(absl::Seconds(1));
  open.erase(open.begin());
  LASP_EXPECT_OK(table_.Use(PeerOf(3, 1), "ann"));
}

TEST_F(ConnectionTableTest, HangsUpOnWhoBeginsCallsWithoutEnd) {
  const auto connect = [this](int host, int port, UniqueFd* near, UniqueFd* far) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    *near = UniqueFd(ends[0]);
    *far = UniqueFd(ends[1]);
    return table_.Add(near->get(), PeerOf(host, port));
  };
  const auto ended = [](const UniqueFd& far) {
    char byte = 0;
    return recv(far.get(), &byte, 1, MSG_DONTWAIT) == 0;
  };
  UniqueFd near[4];
  UniqueFd far[4];
  LASP_ASSERT_OK(connect(1, 1, &near[0], &far[0]));
  LASP_ASSERT_OK(connect(1, 2, &near[1], &far[1]));
  LASP_ASSERT_OK(connect(2, 1, &near[2], &far[2]));
  table_.BeginCall("ipv4:10.0.0.9:9");  // not in the table
  for (int i = 0; i < 10; ++i) {
    table_.BeginCall(PeerOf(1, 1));
    table_.BeginCall(PeerOf(2, 1));
  }
  clock_.Advance(absl::Milliseconds(500));
  for (int i = 0; i < 5; ++i) {
    table_.BeginCall(PeerOf(1, 1));
    table_.BeginCall(PeerOf(2, 1));
  }
  EXPECT_FALSE(ended(far[0]));
  EXPECT_TRUE(refused_.empty());
  for (int i = 0; i < 100; ++i) {
    table_.BeginCall(PeerOf(1, 1));
  }
  EXPECT_TRUE(ended(far[0]));
  EXPECT_FALSE(ended(far[1]));
  EXPECT_FALSE(ended(far[2]));
  EXPECT_EQ(refused_, (std::vector<std::string>{"max_connection_calls_a_second"}));

  // Its host alone is banned, for a while.
  const absl::Status banned = connect(1, 3, &near[3], &far[3]);
  EXPECT_THAT(banned, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("10.0.0.1")));
  EXPECT_EQ(ErrorReason(banned), "FLOODED");
  EXPECT_EQ(refused_.back(), "flood_ban");
  LASP_EXPECT_OK(connect(2, 2, &near[3], &far[3]));
  clock_.Advance(absl::Seconds(7));
  LASP_EXPECT_OK(connect(1, 3, &near[3], &far[3]));
}

// Two ends of a TCP connection, which the kernel counts the bytes of.
std::pair<UniqueFd, UniqueFd> TcpPair() {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(listen(listener.get(), 1), 0);
  EXPECT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  UniqueFd far(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(far.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  UniqueFd near(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  return {std::move(near), std::move(far)};
}

TEST_F(ConnectionTableTest, HangsUpOnAHostThatSendsTooMuch) {
  const auto ended = [](const UniqueFd& far) {
    char byte = 0;
    return recv(far.get(), &byte, 1, MSG_DONTWAIT) == 0;
  };
  const auto send_bytes = [](const std::pair<UniqueFd, UniqueFd>& pair, size_t count) {
    const std::string bytes(count, 'x');
    std::string taken(count, ' ');
    ASSERT_EQ(write(pair.second.get(), bytes.data(), count), static_cast<ssize_t>(count));
    ASSERT_EQ(recv(pair.first.get(), taken.data(), count, MSG_WAITALL),
              static_cast<ssize_t>(count));
  };
  ConnectionTable table({.all = 9, .host_bytes_a_second = 1000}, &clock_,
                        [this](const char* flag) { refused_.emplace_back(flag); });
  const auto pouring = TcpPair();
  const auto beside = TcpPair();
  const auto silent = TcpPair();
  const auto other = TcpPair();
  LASP_ASSERT_OK(table.Add(pouring.first.get(), PeerOf(1, 1)));
  LASP_ASSERT_OK(table.Add(beside.first.get(), PeerOf(1, 2)));
  LASP_ASSERT_OK(table.Add(silent.first.get(), PeerOf(1, 3)));
  LASP_ASSERT_OK(table.Add(other.first.get(), PeerOf(2, 1)));
  const auto sweep = [&] {
    clock_.Advance(absl::Milliseconds(250));
    table.Sweep();
  };
  // What is allowed at once, and then what comes back in a second.
  send_bytes(pouring, 2000);
  send_bytes(beside, 2000);
  send_bytes(other, 2000);
  sweep();
  for (int quarter = 0; quarter < 4; ++quarter) {
    send_bytes(pouring, 240);
    sweep();
  }
  EXPECT_TRUE(refused_.empty());
  send_bytes(pouring, 1000);
  send_bytes(beside, 1000);
  send_bytes(other, 1000);
  sweep();
  EXPECT_TRUE(ended(pouring.second));
  EXPECT_TRUE(ended(beside.second));
  // It has sent nothing; and another host is another.
  EXPECT_FALSE(ended(silent.second));
  EXPECT_FALSE(ended(other.second));
  EXPECT_EQ(refused_, (std::vector<std::string>(2, "max_host_bytes_a_second")));
}

// A TCP connection to an address that a server says.
UniqueFd ConnectTo(const std::string& address) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  to.sin_port = htons(static_cast<uint16_t>(port));
  UniqueFd connection = NewSocket();
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

// ---- sizes --------------------------------------------------------------------------------------

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
