#include "server/console/console_metrics.h"

#include "absl/strings/str_cat.h"

namespace lasp::server {

ConsoleMetrics::ConsoleMetrics(prometheus::Registry* registry)
    : requests_(&prometheus::BuildCounter()
                     .Name("lasp_console_requests_total")
                     .Help("Requests to the console, by the HTTP code of the answer")
                     .Register(*registry)),
      seconds_(&prometheus::BuildHistogram()
                    .Name("lasp_console_request_seconds")
                    .Help("From a request to the console until its answer is ready")
                    .Register(*registry)
                    .Add({}, prometheus::Histogram::BucketBoundaries{.001, .005, .01, .05, .1, .5,
                                                                     1, 5, 10})),
      slow_clients_(&prometheus::BuildCounter()
                         .Name("lasp_console_slow_clients_total")
                         .Help("Connections to the console ended because the client was slow")
                         .Register(*registry)
                         .Add({})) {
  requests_->Add({{"code", "200"}});
}

void ConsoleMetrics::OnAnswer(int code, absl::Duration took) {
  requests_->Add({{"code", absl::StrCat(code)}}).Increment();
  seconds_->Observe(absl::ToDoubleSeconds(took));
}

}  // namespace lasp::server
