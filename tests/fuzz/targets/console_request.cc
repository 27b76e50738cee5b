// What a browser, or anything else, sends to the console: whatever it is, it is answered or hung up
// on, and no answer tells more than the page or says what it did not mean to.
#include <arpa/inet.h>
#include <grpcpp/create_channel.h>
#include <netinet/in.h>
#include <poll.h>
#include <prometheus/registry.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "lasp/v1/log_service.pb.h"
#include "lasp/v1/metrics_service.pb.h"
#include "lasp/v1/server_service.pb.h"
#include "lasp/v1/training_job_service.pb.h"
#include "lasp/v1/worker_admin_service.pb.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/log.h"
#include "proto/spec/unique_fd.h"
#include "server/console/console.h"
#include "server/valid_utf8.h"
#include "tests/fuzz/fuzz_target.h"

namespace lasp {
namespace {

// A console before an API that fails every call, on a port of its own.
struct RunningConsole {
  RunningConsole() {
    // A program that names none of their messages would be linked without these files.
    for (const auto* message :
         {v1::StreamLogsRequest::descriptor(), v1::QueryMetricsRequest::descriptor(),
          v1::GetServerInfoRequest::descriptor(), v1::GetTrainingJobRequest::descriptor(),
          v1::GetWorkerRequest::descriptor()}) {
      fuzz::Require(message != nullptr, "the API's messages are there");
    }
    InitializeLog({.level = LogLevel::kError, .component = "fuzz", .fields = {}});
    auto loaded = server::Credentials::Load({}, [](bool /*used*/) {});
    fuzz::Require(loaded.ok(), "no credentials are none");
    credentials = *std::move(loaded);
    auto started = server::Console::Start({.address = "127.0.0.1:0",
                                           .api = grpc::CreateChannel("nowhere", nullptr),
                                           .credentials = credentials.get(),
                                           .metrics = &metrics,
                                           .clock = &SystemClock()});
    fuzz::Require(started.ok(), "the console starts");
    console = *std::move(started);
    const std::string& address = console->address();
    int number = 0;
    fuzz::Require(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &number),
                  "an address has a port");
    port = static_cast<uint16_t>(number);
  }

  prometheus::Registry registry;
  server::ConsoleMetrics metrics{&registry};
  std::unique_ptr<server::Credentials> credentials;
  std::unique_ptr<server::Console> console;
  uint16_t port = 0;
};

// libFuzzer's alarm interrupts calls that wait; a connection is made all the same.
bool Connect(int socket, const sockaddr_in& to) {
  if (connect(socket, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0) {
    return true;
  }
  if (errno != EINTR) {
    return false;
  }
  pollfd made = {.fd = socket, .events = POLLOUT, .revents = 0};
  while (poll(&made, 1, -1) < 0 && errno == EINTR) {
  }
  socklen_t size = sizeof errno;
  return getsockopt(socket, SOL_SOCKET, SO_ERROR, &errno, &size) == 0 && errno == 0;
}

// All that comes back for `bytes` until the console hangs up.
std::string Exchange(uint16_t port, absl::string_view bytes) {
  const UniqueFd connection(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const timeval limit{.tv_sec = 15, .tv_usec = 0};
  setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  // Ports of connections that ended in order are free only after a minute.
  const linger reset{.l_onoff = 1, .l_linger = 0};
  setsockopt(connection.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  if (!Connect(connection.get(), to)) {
    std::perror("connecting");
    fuzz::Require(false, "the console takes a connection");
  }
  send(connection.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  // The library notices an end that comes with the request itself only at its idle limit.
  pollfd answered = {.fd = connection.get(), .events = POLLIN, .revents = 0};
  poll(&answered, 1, 3);
  shutdown(connection.get(), SHUT_WR);
  std::string answer;
  char buffer[16'384];
  ssize_t size = 0;
  do {
    size = recv(connection.get(), buffer, sizeof buffer, 0);
    answer.append(buffer, size > 0 ? static_cast<size_t>(size) : 0);
  } while (size > 0 || (size < 0 && errno == EINTR));
  fuzz::Require(size == 0 || (errno != EAGAIN && errno != EWOULDBLOCK),
                "a request is answered or hung up on");
  return answer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const running = new RunningConsole;
  std::string answer = Exchange(running->port, fuzz::ToText(data, size));
  // What a client that sends "Expect: 100-continue" is told first.
  constexpr absl::string_view kGoOn = "HTTP/1.1 100 Continue\r\n\r\n";
  if (absl::StartsWith(answer, kGoOn)) {
    answer.erase(0, kGoOn.size());
  }
  if (answer.empty()) {
    return 0;
  }
  int code = 0;
  fuzz::Require(absl::StartsWith(answer, "HTTP/1.") && answer.size() > 12 &&
                    absl::SimpleAtoi(answer.substr(9, 3), &code) && code >= 200 && code < 600,
                "an answer is HTTP");
  const std::string head = answer.substr(0, answer.find("\r\n\r\n"));
  const std::string lower = absl::AsciiStrToLower(head);
  fuzz::Require(!absl::StrContains(lower, "\r\nset-cookie") &&
                    !absl::StrContains(lower, "\r\nlocation") &&
                    !absl::StrContains(lower, "\r\naccess-control"),
                "no header is the caller's");
  if (absl::StrContains(head, "application/json")) {
    fuzz::Require(code >= 400, "an API that fails has no answer");
    fuzz::Require(server::ValidUtf8(answer) == answer, "JSON is UTF-8");
    fuzz::Require(
        absl::StrContains(head, "Content-Security-Policy:") && absl::StrContains(head, "nosniff"),
        "an answer says what a browser may do with it");
  }
  return 0;
}

}  // namespace lasp
