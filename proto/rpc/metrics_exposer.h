// Serves Prometheus metrics over HTTP at /metrics. The library's constructor throws; the exception
// ends here.
#pragma once

#include <prometheus/collectable.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace prometheus {
class Exposer;
}  // namespace prometheus

namespace lasp {

// Thread-safe.
class MetricsExposer {
 public:
  // Serves on `address` (host:port; port 0 picks a free one). UNAVAILABLE naming the address where
  // it is taken, INVALID_ARGUMENT where it is not an address of this host.
  static absl::StatusOr<std::unique_ptr<MetricsExposer>> Create(const std::string& address);
  // Ends at once; the library by itself would take up to two seconds.
  ~MetricsExposer();
  MetricsExposer(const MetricsExposer&) = delete;
  MetricsExposer& operator=(const MetricsExposer&) = delete;

  // Shows what `collectable` collects at each scrape, for as long as it lives.
  void Add(const std::shared_ptr<prometheus::Collectable>& collectable);

  // As given, with the port in use.
  const std::string& address() const { return address_; }

 private:
  MetricsExposer(std::unique_ptr<prometheus::Exposer> exposer, std::string address,
                 std::string numeric_address);

  std::unique_ptr<prometheus::Exposer> exposer_;
  const std::string address_;
  const std::string numeric_address_;
};

}  // namespace lasp
