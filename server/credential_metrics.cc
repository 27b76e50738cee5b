#include "server/credential_metrics.h"

#include <memory>

namespace lasp::server {

std::vector<prometheus::MetricFamily> CredentialMetrics::Collect() const {
  const std::shared_ptr<const TlsIdentity> identity = credentials_->tls();
  if (identity == nullptr) {
    return {};
  }
  prometheus::MetricFamily family;
  family.name = "lasp_certificate_end_timestamp_seconds";
  family.help = "When the coordinator's certificate ends, in Unix time";
  family.type = prometheus::MetricType::Gauge;
  family.metric.emplace_back().gauge.value =
      absl::ToDoubleSeconds(identity->end - absl::UnixEpoch());
  return {family};
}

}  // namespace lasp::server
