#include "server/metrics_http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <prometheus/exposer.h>
#include <sys/socket.h>
#include <unistd.h>

#include <exception>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/status_macros.h"
#include "server/listen_address.h"

namespace lasp::server {

namespace {

// Opens a connection to this machine and drops it. Whether it arrives does not matter.
void Knock(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return;
  }
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  static_cast<void>(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to));
  close(fd);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsHttp>> MetricsHttp::Start(
    const std::string& address,
    std::vector<std::shared_ptr<prometheus::Collectable>> collectables) {
  LASP_ASSIGN_OR_RETURN(const ListenAddress listen, ListenAddress::Parse(address));
  // civetweb knows no host names.
  const std::string host = listen.host == "localhost" ? "127.0.0.1" : listen.host;
  std::unique_ptr<prometheus::Exposer> exposer;
  int port = 0;
  try {
    // One thread serves and one is spare for a scraper that reads slowly.
    exposer = std::make_unique<prometheus::Exposer>(absl::StrCat(host, ":", listen.port), 2);
    for (const auto& collectable : collectables) {
      exposer->RegisterCollectable(collectable);
    }
    port = exposer->GetListeningPorts().at(0);
  } catch (const std::exception& error) {
    return PortTaken("metrics_address", listen, error.what());
  }
  return std::unique_ptr<MetricsHttp>(
      new MetricsHttp(std::move(exposer), listen.host, port, std::move(collectables)));
}

MetricsHttp::MetricsHttp(std::unique_ptr<prometheus::Exposer> exposer, const std::string& host,
                         int port,
                         std::vector<std::shared_ptr<prometheus::Collectable>> collectables)
    : collectables_(std::move(collectables)),
      exposer_(std::move(exposer)),
      port_(port),
      address_(absl::StrCat(host, ":", port)) {}

// civetweb looks whether it should end only when a connection comes or two seconds have passed: it
// is given connections until it has ended.
MetricsHttp::~MetricsHttp() {
  Mutex mutex;
  CondVar changed;
  bool ended = false;
  std::thread closer([&] {
    exposer_.reset();
    MutexLock lock(&mutex);
    ended = true;
    changed.NotifyAll();
  });
  {
    MutexLock lock(&mutex);
    while (!ended) {
      Knock(port_);
      changed.WaitWithTimeout(&mutex, absl::Milliseconds(10));
    }
  }
  closer.join();
}

}  // namespace lasp::server
