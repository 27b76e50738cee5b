// Counts and times every call of a gRPC server, under the names go-grpc-prometheus made common:
// grpc_server_started_total, grpc_server_handled_total, grpc_server_handling_seconds. Also writes
// one debug log line a call.
#pragma once

#include <grpcpp/support/server_interceptor.h>
#include <prometheus/registry.h>

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/rpc/clock.h"

namespace lasp::server {

// Thread-safe. Lives longer than the servers it is given to.
class RpcMetrics {
 public:
  // `services` are full names such as "lasp.v1.TrainingJobService", in the generated descriptors:
  // their series exist from the start. Calls of other services (health, reflection) are not
  // counted.
  RpcMetrics(prometheus::Registry* registry, const std::vector<std::string>& services,
             const Clock* clock);
  ~RpcMetrics();
  RpcMetrics(const RpcMetrics&) = delete;
  RpcMetrics& operator=(const RpcMetrics&) = delete;

  // For ServerBuilder::experimental().SetInterceptorCreators; the factory refers to this object.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> NewInterceptorFactory();

  class Method;

 private:
  const Clock* const clock_;
  prometheus::Family<prometheus::Counter>* handled_ = nullptr;
  // Filled by the constructor, only read afterwards. Keyed by "/service/method".
  std::map<std::string, std::unique_ptr<Method>, std::less<>> methods_;
};

}  // namespace lasp::server
