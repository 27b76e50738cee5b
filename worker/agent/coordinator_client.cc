#include "worker/agent/coordinator_client.h"

#include <algorithm>
#include <random>
#include <utility>

#include "proto/rpc/clock.h"
#include "proto/rpc/log.h"

namespace lasp::worker {
namespace {

constexpr absl::Duration kFirstBackoff = absl::Milliseconds(200);
constexpr absl::Duration kLastBackoff = absl::Seconds(5);
// A coordinator that takes the stream and does not greet is as good as away.
constexpr absl::Duration kWelcomeTimeout = absl::Seconds(10);
// How often a stream without traffic looks whether it has ended.
constexpr absl::Duration kIdleWait = absl::Seconds(1);
// How often the same failure to connect is said again.
constexpr absl::Duration kRepeatInterval = absl::Minutes(1);

}  // namespace

CoordinatorClient::CoordinatorClient(CoordinatorChannel channel, Agent* agent,
                                     std::function<void(bool)> connection_changed)
    : channel_(std::move(channel)),
      agent_(agent),
      connection_changed_(std::move(connection_changed)),
      thread_([this] { Run(); }) {}

CoordinatorClient::~CoordinatorClient() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    if (context_ != nullptr) {
      context_->TryCancel();
    }
    changed_.NotifyAll();
  }
  agent_->Wake();
  thread_.join();
}

void CoordinatorClient::Finish(absl::Duration timeout) {
  const absl::Duration until = SystemClock().Monotonic() + timeout;
  {
    MutexLock lock(&mutex_);
    finishing_ = true;
    if (context_ != nullptr && !agent_->connected()) {
      // Whoever is dialed, or has not greeted, hears nothing anyway.
      context_->TryCancel();
    }
  }
  agent_->Wake();
  MutexLock lock(&mutex_);
  while (!stream_ended_ && SystemClock().Monotonic() < until) {
    changed_.WaitWithTimeout(&mutex_, until - SystemClock().Monotonic());
  }
}

bool CoordinatorClient::finishing() const {
  MutexLock lock(&mutex_);
  return finishing_;
}

void CoordinatorClient::WaitUntilStreamEnds() {
  MutexLock lock(&mutex_);
  while (!stopping_ && !stream_ended_) {
    changed_.WaitWithTimeout(&mutex_, kIdleWait);
  }
}

bool CoordinatorClient::ended() const {
  MutexLock lock(&mutex_);
  return stopping_ || stream_ended_;
}

void CoordinatorClient::Run() {
  std::mt19937_64 random{std::random_device{}()};
  absl::Duration backoff = kFirstBackoff;
  for (;;) {
    const bool welcomed = RunStream();
    backoff = welcomed ? kFirstBackoff : std::min(backoff * 2, kLastBackoff);
    // Full jitter: a thousand agents that lost one coordinator do not come back at once.
    const absl::Duration wait = backoff * std::uniform_real_distribution<double>(0, 1)(random);
    const absl::Duration until = SystemClock().Monotonic() + wait;
    MutexLock lock(&mutex_);
    while (!stopping_ && !finishing_ && SystemClock().Monotonic() < until) {
      changed_.WaitWithTimeout(&mutex_, until - SystemClock().Monotonic());
    }
    if (stopping_ || finishing_) {
      return;
    }
  }
}

bool CoordinatorClient::RunStream() {
  grpc::ClientContext context;
  {
    MutexLock lock(&mutex_);
    if (stopping_ || finishing_) {
      return false;
    }
    stream_ended_ = false;
    context_ = &context;
  }
  const auto stub = lasp::v1::WorkerService::NewStub(channel_.Latest());
  const std::unique_ptr<Stream> stream = stub->Connect(&context);
  agent_->BeginStream();
  std::thread reader([this, &stream] { ReadAll(stream.get()); });
  WriteAll(stream.get(), &context);
  // Whatever ended the writing ends the reading. It is not cancelled here: a stream that the
  // coordinator has refused says why.
  reader.join();
  const bool welcomed = agent_->connected();
  agent_->EndStream();
  const grpc::Status status = stream->Finish();
  if (welcomed) {
    connection_changed_(false);
    last_failure_.clear();
  }
  MutexLock lock(&mutex_);
  context_ = nullptr;
  if (!stopping_ && !finishing_) {
    LogFailure(status);
  }
  return welcomed;
}

void CoordinatorClient::LogFailure(const grpc::Status& status) {
  const absl::Duration now = SystemClock().Monotonic();
  if (status.error_message() == last_failure_ && now - last_failure_at_ < kRepeatInterval) {
    return;
  }
  last_failure_ = status.error_message();
  last_failure_at_ = now;
  LASP_LOG(kWarning, "no connection to the coordinator",
           {{"code", static_cast<int>(status.error_code())}, {"error", status.error_message()}});
}

void CoordinatorClient::ReadAll(Stream* stream) {
  lasp::v1::ConnectResponse response;
  while (stream->Read(&response)) {
    const bool welcome = response.has_welcome();
    agent_->Handle(response);
    if (welcome) {
      connection_changed_(true);
    }
    response.Clear();
  }
  {
    MutexLock lock(&mutex_);
    stream_ended_ = true;
    changed_.NotifyAll();
  }
  agent_->Wake();
}

void CoordinatorClient::WriteAll(Stream* stream, grpc::ClientContext* context) {
  const absl::Duration welcome_by = SystemClock().Monotonic() + kWelcomeTimeout;
  while (!ended()) {
    const std::optional<lasp::v1::ConnectRequest> message = agent_->NextMessage(kIdleWait);
    if (message.has_value() && !stream->Write(*message)) {
      return;
    }
    if (!message.has_value() && finishing()) {
      stream->WritesDone();
      WaitUntilStreamEnds();
      return;
    }
    if (!agent_->connected() && SystemClock().Monotonic() > welcome_by) {
      LASP_LOG(kWarning, "the coordinator does not answer");
      context->TryCancel();
      return;
    }
  }
}

}  // namespace lasp::worker
