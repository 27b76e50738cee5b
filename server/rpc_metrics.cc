#include "server/rpc_metrics.h"

#include <google/protobuf/descriptor.h>
#include <prometheus/counter.h>
#include <prometheus/histogram.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"

namespace lasp::server {
namespace {

constexpr int kCodes = 17;

const std::vector<double>& HandlingBuckets() {
  static const auto* const buckets =
      new std::vector<double>{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30};
  return *buckets;
}

const char* TypeName(const google::protobuf::MethodDescriptor& method) {
  if (method.client_streaming()) {
    return method.server_streaming() ? "bidi_stream" : "client_stream";
  }
  return method.server_streaming() ? "server_stream" : "unary";
}

// go-grpc-prometheus writes codes as Go does: OK, NotFound, …
std::string CodeLabel(int code) {
  static constexpr const char* kNames[kCodes] = {
      "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
      "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
      "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
      "DataLoss", "Unauthenticated"};
  return kNames[code];
}

}  // namespace

// The series of one method.
class RpcMetrics::Method {
 public:
  Method(std::string path, prometheus::Labels labels, prometheus::Counter* started,
         prometheus::Histogram* seconds, prometheus::Family<prometheus::Counter>* handled)
      : path_(std::move(path)),
        labels_(std::move(labels)),
        started_(started),
        seconds_(seconds),
        handled_(handled) {
    Handled(0);
  }

  void Started() { started_->Increment(); }

  void Finished(int code, absl::Duration duration) {
    const int known = code >= 0 && code < kCodes ? code : 2;
    Handled(known)->Increment();
    seconds_->Observe(absl::ToDoubleSeconds(duration));
    LASP_LOG(kDebug, "rpc",
             {{"method", path_},
              {"code", CodeLabel(known)},
              {"milliseconds", absl::ToDoubleMilliseconds(duration)}});
  }

 private:
  // Series of codes other than OK appear with their first call. Family::Add returns the present
  // series for labels it knows, so two threads may both ask.
  prometheus::Counter* Handled(int code) {
    std::atomic<prometheus::Counter*>& slot = by_code_[static_cast<size_t>(code)];
    prometheus::Counter* counter = slot.load(std::memory_order_acquire);
    if (counter == nullptr) {
      prometheus::Labels labels = labels_;
      labels["grpc_code"] = CodeLabel(code);
      counter = &handled_->Add(labels);
      slot.store(counter, std::memory_order_release);
    }
    return counter;
  }

  const std::string path_;
  const prometheus::Labels labels_;
  prometheus::Counter* const started_;
  prometheus::Histogram* const seconds_;
  prometheus::Family<prometheus::Counter>* const handled_;
  std::array<std::atomic<prometheus::Counter*>, kCodes> by_code_{};
};

namespace {

// Lives as long as its call.
class CallTimer final : public grpc::experimental::Interceptor {
 public:
  CallTimer(RpcMetrics::Method* method, const Clock* clock)
      : method_(method), clock_(clock), start_(clock->Monotonic()) {
    method_->Started();
  }

  // A call whose status could not be sent any more (the client left) was cancelled.
  ~CallTimer() override {
    if (!finished_) {
      Finish(static_cast<int>(absl::StatusCode::kCancelled));
    }
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      Finish(methods->GetSendStatus().error_code());
    }
    methods->Proceed();
  }

 private:
  void Finish(int code) {
    finished_ = true;
    method_->Finished(code, clock_->Monotonic() - start_);
  }

  RpcMetrics::Method* const method_;
  const Clock* const clock_;
  const absl::Duration start_;
  bool finished_ = false;
};

class CallTimerFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  CallTimerFactory(const std::map<std::string, std::unique_ptr<RpcMetrics::Method>, std::less<>>* m,
                   const Clock* clock)
      : methods_(m), clock_(clock) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    const auto method = methods_->find(info->method());
    return method == methods_->end() ? nullptr : new CallTimer(method->second.get(), clock_);
  }

 private:
  const std::map<std::string, std::unique_ptr<RpcMetrics::Method>, std::less<>>* const methods_;
  const Clock* const clock_;
};

}  // namespace

RpcMetrics::RpcMetrics(prometheus::Registry* registry, const std::vector<std::string>& services,
                       const Clock* clock)
    : clock_(clock) {
  auto& started = prometheus::BuildCounter()
                      .Name("grpc_server_started_total")
                      .Help("Calls that arrived")
                      .Register(*registry);
  handled_ = &prometheus::BuildCounter()
                  .Name("grpc_server_handled_total")
                  .Help("Calls that ended, by their code")
                  .Register(*registry);
  auto& seconds = prometheus::BuildHistogram()
                      .Name("grpc_server_handling_seconds")
                      .Help("From a call's arrival to its end")
                      .Register(*registry);
  for (const std::string& name : services) {
    const auto* service =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
    for (int i = 0; service != nullptr && i < service->method_count(); ++i) {
      const auto& method = *service->method(i);
      const prometheus::Labels labels = {
          {"grpc_service", name}, {"grpc_method", method.name()}, {"grpc_type", TypeName(method)}};
      std::string path = absl::StrCat("/", name, "/", method.name());
      methods_[path] = std::make_unique<Method>(path, labels, &started.Add(labels),
                                                &seconds.Add(labels, HandlingBuckets()), handled_);
    }
  }
}

RpcMetrics::~RpcMetrics() = default;

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
RpcMetrics::NewInterceptorFactory() {
  return std::make_unique<CallTimerFactory>(&methods_, clock_);
}

}  // namespace lasp::server
