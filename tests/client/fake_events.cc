// The fake coordinator's events.
#include <algorithm>
#include <limits>

#include "tests/client/fake_server_state.h"

namespace lasp::client {
namespace {

class Events final : public lasp::v1::EventService::Service {
 public:
  Events(FakeServer* server, FakeServerState* state) : server_(server), state_(*state) {}

  grpc::Status ListEvents(grpc::ServerContext*, const lasp::v1::ListEventsRequest* request,
                          lasp::v1::ListEventsResponse* response) override {
    std::function<void()> on_list_events;
    {
      MutexLock lock(&state_.mutex);
      on_list_events = state_.on_list_events;
    }
    if (on_list_events) {
      on_list_events();
    }
    return state_.Run([&] {
      state_.AssertHeld();
      state_.list_events = *request;
      const int64_t before = request->page_token().empty() ? std::numeric_limits<int64_t>::max()
                                                           : std::stoll(request->page_token());
      for (auto event = state_.told.rbegin(); event != state_.told.rend(); ++event) {
        if (event->sequence() >= before || event->sequence() <= state_.forgotten ||
            (!request->subject().empty() && event->subject() != request->subject())) {
          continue;
        }
        if (response->events_size() == request->page_size()) {
          response->set_next_page_token(
              std::to_string(response->events(response->events_size() - 1).sequence()));
          break;
        }
        *response->add_events() = *event;
      }
      response->set_resume_token(
          std::to_string(state_.told.empty() ? 0 : state_.told.back().sequence()));
      return absl::OkStatus();
    });
  }

  grpc::Status WatchEvents(grpc::ServerContext* context,
                           const lasp::v1::WatchEventsRequest* request,
                           grpc::ServerWriter<lasp::v1::WatchEventsResponse>* writer) override {
    std::function<void(FakeServer*)> on_watch;
    int breaks = 0;
    {
      MutexLock lock(&state_.mutex);
      state_.watch_events = *request;
      on_watch = state_.on_watch;
      breaks = state_.breaks;
    }
    if (on_watch) {
      on_watch(server_);
    }
    MutexLock lock(&state_.mutex);
    int64_t cursor = std::stoll(request->resume_token());
    while (!context->IsCancelled() && !state_.stopping && state_.breaks == breaks) {
      if (cursor < state_.forgotten) {
        return {grpc::StatusCode::OUT_OF_RANGE, "forgotten"};
      }
      const auto next =
          std::find_if(state_.told.begin(), state_.told.end(),
                       [cursor](const auto& event) { return event.sequence() > cursor; });
      if (next == state_.told.end()) {
        state_.changed.WaitWithTimeout(&state_.mutex, absl::Milliseconds(50));
        continue;
      }
      cursor = next->sequence();
      lasp::v1::WatchEventsResponse response;
      *response.add_events() = *next;
      response.set_resume_token(std::to_string(cursor));
      if (request->subject().empty() || request->subject() == next->subject()) {
        writer->Write(response);
      }
    }
    return {grpc::StatusCode::UNAVAILABLE, "the watch is broken"};
  }

 private:
  FakeServer* const server_;
  FakeServerState& state_;
};

}  // namespace

std::unique_ptr<grpc::Service> FakeEvents(FakeServer* server, FakeServerState* state) {
  return std::make_unique<Events>(server, state);
}

}  // namespace lasp::client
