#include "server/console/api_caller.h"

#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/client_callback.h>

#include <utility>

#include "proto/rpc/status_conversion.h"

namespace lasp::server {
namespace {

using google::protobuf::Message;
using Stub = grpc::TemplatedGenericStub<Message, Message>;

std::unique_ptr<Message> NewMessage(const google::protobuf::Descriptor* type) {
  return std::unique_ptr<Message>(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
}

}  // namespace

// Deletes itself when it has ended.
class ApiCaller::Call {
 public:
  Call(ApiCaller* caller, ApiCall call, Done done)
      : caller_(caller),
        call_(std::move(call)),
        done_(std::move(done)),
        answer_(NewMessage(call_.method->output_type())) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + caller->deadline_));
  }

  virtual ~Call() = default;

  virtual void Start() = 0;

  grpc::ClientContext& context() { return context_; }

 protected:
  void Finish(const grpc::Status& status) {
    if (status.ok()) {
      done_(std::move(answer_));
    } else {
      done_(FromGrpcStatus(status));
    }
    caller_->Finished(this);
  }

  const ApiCall& call() const { return call_; }

  ApiCaller* caller() { return caller_; }

  Message* answer() { return answer_.get(); }

 private:
  ApiCaller* const caller_;
  const ApiCall call_;
  const Done done_;
  std::unique_ptr<Message> answer_;
  grpc::ClientContext context_;
};

class ApiCaller::UnaryCall final : public Call {
 public:
  using Call::Call;

  void Start() override {
    Stub(caller()->channel_)
        .UnaryCall(&context(), call().route->method, {}, call().request.get(), answer(),
                   [this](const grpc::Status& status) { Finish(status); });
  }
};

class ApiCaller::StreamCall final : public Call, public grpc::ClientBidiReactor<Message, Message> {
 public:
  StreamCall(ApiCaller* caller, ApiCall call, Done done)
      : Call(caller, std::move(call), std::move(done)), next_(answer()->New()) {}

  void Start() override {
    Stub(caller()->channel_).PrepareBidiStreamingCall(&context(), call().route->method, {}, this);
    StartWriteLast(call().request.get(), grpc::WriteOptions());
    StartRead(next_.get());
    StartCall();
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) {
      return;
    }
    answer()->MergeFrom(*next_);
    full_ = answer()->ByteSizeLong() >= caller()->max_stream_bytes_;
    if (full_) {
      context().TryCancel();
    } else {
      next_->Clear();
      StartRead(next_.get());
    }
  }

  void OnDone(const grpc::Status& status) override { Finish(full_ ? grpc::Status::OK : status); }

  const std::unique_ptr<Message> next_;
  // It was ended because it is enough.
  bool full_ = false;
};

ApiCaller::~ApiCaller() {
  Cancel();
  MutexLock lock(&mutex_);
  while (!calls_.empty()) {
    idle_.Wait(&mutex_);
  }
}

void ApiCaller::Start(ApiCall call, const std::vector<std::string>& authorization, Done done) {
  Call* started = nullptr;
  if (call.method->server_streaming()) {
    started = new StreamCall(this, std::move(call), std::move(done));
  } else {
    started = new UnaryCall(this, std::move(call), std::move(done));
  }
  for (const std::string& value : authorization) {
    started->context().AddMetadata("authorization", value);
  }
  {
    MutexLock lock(&mutex_);
    calls_.insert(started);
  }
  started->Start();
}

void ApiCaller::Cancel() {
  MutexLock lock(&mutex_);
  for (Call* call : calls_) {
    call->context().TryCancel();
  }
}

void ApiCaller::Finished(Call* call) {
  {
    MutexLock lock(&mutex_);
    calls_.erase(call);
    idle_.NotifyAll();
  }
  delete call;
}

}  // namespace lasp::server
