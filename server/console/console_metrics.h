// Counts the console's requests.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include "absl/time/time.h"

namespace lasp::server {

// Thread-safe.
class ConsoleMetrics {
 public:
  explicit ConsoleMetrics(prometheus::Registry* registry);

  void OnAnswer(int code, absl::Duration took);

  void OnSlowClient() { slow_clients_->Increment(); }

 private:
  prometheus::Family<prometheus::Counter>* requests_;
  prometheus::Histogram* seconds_;
  prometheus::Counter* slow_clients_;
};

}  // namespace lasp::server
