// When the coordinator's certificate ends, for an alert before it does.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <vector>

#include "server/credentials.h"

namespace lasp::server {

// Read at each scrape; nothing without TLS. Thread-safe.
class CredentialMetrics final : public prometheus::Collectable {
 public:
  // `credentials` outlives it.
  explicit CredentialMetrics(const Credentials* credentials) : credentials_(credentials) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Credentials* const credentials_;
};

}  // namespace lasp::server
