#include "tests/simulation/stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lasp::simulation {
namespace {

// Without ids, which are others in each run.
std::string Describe(const lasp::v1::Fence& fence) {
  return absl::StrCat(" ", fence.training_job(), " generation ", fence.generation(), " rank ",
                      fence.rank());
}

std::string Describe(const lasp::v1::ConnectRequest& request) {
  const std::string number = absl::StrCat("#", request.sequence(), " ");
  switch (request.body_case()) {
    case lasp::v1::ConnectRequest::kHello:
      return absl::StrCat(number, "hello with ", request.hello().ranks_size(), " ranks",
                          request.hello().draining() ? ", draining" : "");
    case lasp::v1::ConnectRequest::kRankAddress:
      return absl::StrCat(number, "address of", Describe(request.rank_address().fence()));
    case lasp::v1::ConnectRequest::kRankReady:
      return absl::StrCat(number, "ready", Describe(request.rank_ready().fence()));
    case lasp::v1::ConnectRequest::kStepReports:
      return absl::StrCat(number, "steps from ", request.step_reports().steps(0).step(), " of",
                          Describe(request.step_reports().fence()));
    case lasp::v1::ConnectRequest::kRankExited:
      return absl::StrCat(number, "exit ", request.rank_exited().exit_code(), " of",
                          Describe(request.rank_exited().fence()));
    default:
      return absl::StrCat(number, "message of kind ", static_cast<int>(request.body_case()));
  }
}

std::string Describe(const lasp::v1::ConnectResponse& response) {
  switch (response.body_case()) {
    case lasp::v1::ConnectResponse::kAssignment:
      return absl::StrCat("assignment of", Describe(response.assignment().fence()), " to slot ",
                          response.assignment().slot());
    case lasp::v1::ConnectResponse::kPeerAddresses:
      return absl::StrCat("peers for", Describe(response.peer_addresses().fence()));
    case lasp::v1::ConnectResponse::kStart:
      return absl::StrCat("start", Describe(response.start().fence()));
    case lasp::v1::ConnectResponse::kStop:
      return absl::StrCat(lasp::v1::Stop::Mode_Name(response.stop().mode()), " for ",
                          response.stop().reason(), Describe(response.stop().fence()));
    case lasp::v1::ConnectResponse::kWelcome:
      return "welcome";
    default:
      return absl::StrCat("acknowledgement of #", response.acked_sequence());
  }
}

}  // namespace

using lasp::v1::ConnectRequest;
using lasp::v1::ConnectResponse;

Stream::Stream(Context* context, Checker* checker, Coordinator* coordinator, std::string worker_id,
               Receiver receiver)
    : context_(context),
      checker_(checker),
      coordinator_(coordinator),
      worker_id_(std::move(worker_id)),
      incarnation_(coordinator->incarnation()),
      receiver_(std::move(receiver)),
      random_(context->MakeRandom()) {}

std::shared_ptr<Stream> Stream::Open(Context* context, Checker* checker, Coordinator* coordinator,
                                     std::string worker_id, Receiver receiver) {
  const std::shared_ptr<Stream> stream(
      new Stream(context, checker, coordinator, std::move(worker_id), std::move(receiver)));
  coordinator->AtCrash([weak = stream->weak_from_this()] {
    if (const std::shared_ptr<Stream> open = weak.lock()) {
      open->LoseServer();
    }
  });
  return stream;
}

template <typename Message>
void Stream::Post(Direction<Message>* direction, Message message,
                  void (Stream::*arrive)(const Message&)) {
  const absl::Duration latency =
      random_.Chance(0.02) ? random_.Between(absl::ZeroDuration(), absl::Milliseconds(800))
                           : random_.Between(absl::Microseconds(50), absl::Milliseconds(5));
  const absl::Duration arrival =
      std::max(context_->now() + latency, direction->last_arrival + absl::Nanoseconds(1));
  direction->last_arrival = arrival;
  direction->under_way.push_back(std::move(message));
  context_->timeline().After(
      arrival - context_->now(),
      [self = shared_from_this(), direction, arrive] { self->ArriveNext(direction, arrive); });
}

template <typename Message>
void Stream::ArriveNext(Direction<Message>* direction, void (Stream::*arrive)(const Message&)) {
  const absl::Duration now = context_->now();
  const absl::Duration until = std::max(held_until_, direction == static_cast<void*>(&to_server_)
                                                         ? coordinator_->stalled_until()
                                                         : absl::ZeroDuration());
  if (until > now) {
    // Those behind it wait too, and in this order.
    context_->timeline().After(until - now, [self = shared_from_this(), direction, arrive] {
      self->ArriveNext(direction, arrive);
    });
    return;
  }
  const Message message = std::move(direction->under_way.front());
  direction->under_way.pop_front();
  if (now <= direction->cut) {
    (this->*arrive)(message);
  }
}

void Stream::After(absl::Duration delay, void (Stream::*then)()) {
  context_->timeline().After(delay, [self = shared_from_this(), then] { (self.get()->*then)(); });
}

void Stream::SendToServer(ConnectRequest request) {
  if (client_open_) {
    Post(&to_server_, std::move(request), &Stream::ArriveAtServer);
  }
}

void Stream::Send(ConnectResponse response) {
  if (!server_open_) {
    return;
  }
  // A message is out of the coordinator's hands here, whether it arrives or not.
  checker_->OnSend(response);
  while (!taken_.empty() && taken_.begin()->first <= response.acked_sequence()) {
    checker_->OnAcknowledged(worker_id_, taken_.begin()->second);
    taken_.erase(taken_.begin());
  }
  if (context_->recording()) {
    context_->Say("to ", worker_id_, ": ", Describe(response));
  }
  Post(&to_client_, std::move(response), &Stream::ArriveAtClient);
}

void Stream::ArriveAtServer(const ConnectRequest& arrived) {
  if (!server_open_ || !coordinator_->up() || coordinator_->incarnation() != incarnation_) {
    return;
  }
  ConnectRequest request = arrived;
  Distort(&request);
  if (context_->recording() && !request.has_heartbeat()) {
    context_->Say("from ", worker_id_, ": ", Describe(request));
  }
  server::JobController* const controller = coordinator_->controller();
  if (session_ == nullptr) {
    auto session = controller->Connect(std::move(*request.mutable_hello()), shared_from_this());
    if (session.ok()) {
      session_ = *std::move(session);
    } else {
      Close(session.status());
    }
  } else {
    if (request.has_step_reports() || request.has_rank_exited()) {
      taken_[request.sequence()] = request;
    }
    const absl::Status taken = controller->Deliver(session_, std::move(request));
    if (!taken.ok()) {
      Close(taken);
    }
  }
  coordinator_->Wake();
}

void Stream::ArriveAtClient(const ConnectResponse& response) {
  if (client_open_ && receiver_.message != nullptr) {
    receiver_.message(response);
  }
}

void Stream::Distort(ConnectRequest* request) const {
  if (context_->plant() != Plant::kStaleReports) {
    return;
  }
  lasp::v1::Fence* const fence =
      request->has_step_reports()  ? request->mutable_step_reports()->mutable_fence()
      : request->has_rank_exited() ? request->mutable_rank_exited()->mutable_fence()
                                   : nullptr;
  const JobShadow* const job = fence == nullptr ? nullptr : checker_->FindByUid(fence->uid());
  if (job != nullptr && fence->generation() < job->generation) {
    fence->set_generation(job->generation);
  }
}

void Stream::Close(const absl::Status& status) {
  if (!server_open_) {
    return;
  }
  context_->Say("coordinator ends the stream of ", worker_id_, ": ", status.message());
  server_open_ = false;
  // The agent hears of it behind the messages before it.
  After(std::max(to_client_.last_arrival - context_->now(), absl::ZeroDuration()) +
            absl::Milliseconds(1),
        &Stream::EndClient);
  After(random_.Between(absl::ZeroDuration(), absl::Milliseconds(20)), &Stream::EndServer);
}

void Stream::EndServer() {
  server_open_ = false;
  if (session_ != nullptr && coordinator_->incarnation() == incarnation_) {
    coordinator_->controller()->Disconnect(session_);
    coordinator_->Wake();
  }
  session_ = nullptr;
}

void Stream::EndClient() {
  if (held_until_ > context_->now()) {
    After(held_until_ - context_->now(), &Stream::EndClient);
    return;
  }
  if (std::exchange(client_open_, false) && receiver_.end != nullptr) {
    receiver_.end();
  }
}

void Stream::LoseServer() {
  server_open_ = false;
  if (session_ != nullptr) {
    session_->Drop();
    session_ = nullptr;
  }
  After(random_.Between(absl::ZeroDuration(), absl::Milliseconds(300)), &Stream::EndClient);
}

void Stream::Abandon(bool told) {
  client_open_ = false;
  receiver_ = {};
  After(told ? random_.Between(absl::ZeroDuration(), absl::Milliseconds(100))
             // Nobody closes it: the keepalive does.
             : random_.Between(absl::Seconds(20), absl::Seconds(50)),
        &Stream::EndServer);
}

void Stream::Break() {
  context_->Say("the stream of ", worker_id_, " breaks");
  const absl::Duration now = context_->now();
  // One that is broken already stays so: nothing comes behind what was lost.
  for (absl::Duration* const cut : {&to_server_.cut, &to_client_.cut}) {
    *cut = std::min(*cut, now + random_.Between(absl::ZeroDuration(), absl::Milliseconds(500)));
  }
  const auto notice = [this] {
    return random_.Chance(0.3) ? random_.Between(absl::Seconds(1), absl::Seconds(30))
                               : random_.Between(absl::ZeroDuration(), absl::Seconds(1));
  };
  After(notice(), &Stream::EndServer);
  After(notice(), &Stream::EndClient);
}

}  // namespace lasp::simulation
