// The /metrics page. The one place that touches prometheus-cpp's HTTP server, which throws.
#pragma once

#include <prometheus/collectable.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace prometheus {
class Exposer;
}

namespace lasp::server {

// Serves from construction to destruction. Thread-safe.
class MetricsHttp {
 public:
  // `address` is host:port; port 0 picks a free one. The collectables are kept alive.
  // UNAVAILABLE when the port is taken, naming the holder.
  static absl::StatusOr<std::unique_ptr<MetricsHttp>> Start(
      const std::string& address,
      std::vector<std::shared_ptr<prometheus::Collectable>> collectables);

  ~MetricsHttp();

  // With the port that was picked.
  const std::string& address() const { return address_; }

 private:
  MetricsHttp(std::unique_ptr<prometheus::Exposer> exposer, const std::string& host, int port,
              std::vector<std::shared_ptr<prometheus::Collectable>> collectables);

  std::vector<std::shared_ptr<prometheus::Collectable>> collectables_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  const int port_;
  const std::string address_;
};

}  // namespace lasp::server
