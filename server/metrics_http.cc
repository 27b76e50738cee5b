#include "server/metrics_http.h"

#include <prometheus/exposer.h>

#include <exception>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "server/listen_address.h"

namespace lasp::server {

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
  return std::unique_ptr<MetricsHttp>(new MetricsHttp(
      std::move(exposer), absl::StrCat(listen.host, ":", port), std::move(collectables)));
}

MetricsHttp::MetricsHttp(std::unique_ptr<prometheus::Exposer> exposer, std::string address,
                         std::vector<std::shared_ptr<prometheus::Collectable>> collectables)
    : collectables_(std::move(collectables)),
      exposer_(std::move(exposer)),
      address_(std::move(address)) {}

MetricsHttp::~MetricsHttp() = default;

}  // namespace lasp::server
