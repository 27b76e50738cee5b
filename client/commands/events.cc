#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/commands/commands.h"
#include "client/event_stream.h"
#include "client/event_table.h"
#include "client/exit_code.h"
#include "client/interrupt.h"
#include "client/job_reference.h"
#include "client/output.h"
#include "client/stream_retry.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::Event;
using EventStub = lasp::v1::EventService::Stub;

constexpr int kPageSize = 500;

// What the events are of.
struct Subject {
  std::string parent;
  // Empty for everything.
  std::string name;

  bool is_job() const { return absl::StartsWith(name, "projects/"); }
};

absl::StatusOr<Subject> ReadSubject(const EventsOptions& options, const Words& words,
                                    Session* session) {
  Subject subject{.parent = options.all_projects ? "projects/-" : session->ProjectName(),
                  .name = {}};
  if (words.empty()) {
    return subject;
  }
  if (absl::StartsWith(words.front(), "worker/") || absl::StartsWith(words.front(), "workers/") ||
      (words.size() == 2 && (words.front() == "worker" || words.front() == "workers"))) {
    LASP_ASSIGN_OR_RETURN(subject.name, WorkerArgument(words));
    return subject;
  }
  LASP_ASSIGN_OR_RETURN(const std::string reference, JobArgument(words));
  LASP_ASSIGN_OR_RETURN(const lasp::v1::TrainingJob job, ResolveJob(reference, session));
  subject.name = job.name();
  subject.parent = "projects/-";
  return subject;
}

// Whether nothing more can happen to the subject.
bool IsLast(const Event& event, const Subject& subject) {
  return subject.is_job() && (event.to_state().empty() || event.to_state() == "SUCCEEDED" ||
                              event.to_state() == "FAILED" || event.to_state() == "CANCELLED");
}

class EventPrinter {
 public:
  EventPrinter(const EventsOptions& options, Session* session)
      : options_(options), session_(*session) {}

  bool Wants(const Event& event) const {
    return !options_.warnings || event.severity() == Event::SEVERITY_WARNING;
  }

  // Each event once, in order.
  void Print(const Event& event) {
    if (event.sequence() <= last_) {
      return;
    }
    last_ = event.sequence();
    if (!Wants(event)) {
      return;
    }
    Console& console = session_.console();
    switch (session_.options().output) {
      case OutputFormat::kName:
        console.Print(event.subject() + "\n");
        return;
      case OutputFormat::kJson:
      case OutputFormat::kYaml:
        console.Print(MessageLine(event));
        return;
      default:
        console.Print(EventRow(event, console.Out(), first_));
        first_ = false;
    }
  }

  // The sequence of the last event seen.
  int64_t last() const { return last_; }

 private:
  const EventsOptions options_;
  Session& session_;
  int64_t last_ = 0;
  bool first_ = true;
};

struct Latest {
  // Oldest first.
  std::vector<Event> events;
  std::string resume_token;
  // Whether there are no older ones.
  bool complete = false;
  // The newest of all, whether it was wanted or not; none where nothing has happened.
  std::optional<Event> newest;
};

// The latest events, at most `limit` of those that `wants` takes, and none up to `after`.
template <typename Wants>
absl::StatusOr<Latest> ListLatest(const Subject& subject, int limit, int64_t after,
                                  const Wants& wants, Session* session) {
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  lasp::v1::ListEventsRequest request;
  request.set_parent(subject.parent);
  request.set_subject(subject.name);
  Latest latest;
  while (true) {
    request.set_page_size(
        static_cast<int>(std::min<int64_t>(kPageSize, limit - std::ssize(latest.events))));
    LASP_ASSIGN_OR_RETURN(
        const auto page,
        connection->Call(&connection->events(), &EventStub::ListEvents, request, kReadDeadline));
    if (latest.resume_token.empty()) {
      latest.resume_token = page.resume_token();
    }
    if (!latest.newest.has_value() && !page.events().empty()) {
      latest.newest = page.events(0);
    }
    bool reached = false;
    for (const Event& event : page.events()) {
      reached = reached || event.sequence() <= after;
      if (!reached && wants(event) && std::ssize(latest.events) < limit) {
        latest.events.push_back(event);
      }
    }
    latest.complete = reached || page.next_page_token().empty();
    if (latest.complete || std::ssize(latest.events) >= limit) {
      std::reverse(latest.events.begin(), latest.events.end());
      return latest;
    }
    request.set_page_token(page.next_page_token());
  }
}

absl::StatusOr<int> WatchEvents(const EventsOptions& options, const Subject& subject,
                                Session* session) {
  constexpr absl::Duration kPatience = absl::Minutes(1);
  constexpr int kCatchUp = 100'000;
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  const InterruptScope scope([] {});
  StreamRetry retry(session, connection);
  EventPrinter printer(options, session);
  lasp::v1::WatchEventsRequest request;
  request.set_parent(subject.parent);
  request.set_subject(subject.name);
  const auto show = [&](const auto& events) {
    bool last = false;
    for (const Event& event : events) {
      printer.Print(event);
      last = IsLast(event, subject);
    }
    return last;
  };
  LASP_ASSIGN_OR_RETURN(const Latest begin,
                        ListLatest(
                            subject, options.limit, 0,
                            [&](const Event& event) { return printer.Wants(event); }, session));
  show(begin.events);
  if (begin.newest.has_value() && IsLast(*begin.newest, subject)) {
    return kExitOk;
  }
  request.set_resume_token(begin.resume_token);
  while (true) {
    EventStream<lasp::v1::WatchEventsResponse> stream(
        [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
          return connection->events().PrepareAsyncWatchEvents(context, request, queue);
        });
    for (StreamEvent event = stream.Next(kPatience); event != StreamEvent::kEnd;
         event = stream.Next(kPatience)) {
      if (event == StreamEvent::kMessage) {
        retry.Heard();
        request.set_resume_token(stream.message().resume_token());
        if (show(stream.message().events())) {
          return kExitOk;
        }
      }
    }
    absl::Status status = stream.status();
    if (absl::IsOutOfRange(status)) {
      // Too far behind: what is still held, and a word where that is not all.
      LASP_ASSIGN_OR_RETURN(const Latest missed, ListLatest(
                                                     subject, kCatchUp, printer.last(),
                                                     [](const Event&) { return true; }, session));
      if (!missed.complete || !subject.is_job()) {
        session->console().Note("some events came faster than they were read and may be missing");
      }
      if (show(missed.events)) {
        return kExitOk;
      }
      request.set_resume_token(missed.resume_token);
      status = absl::OkStatus();
    }
    LASP_RETURN_IF_ERROR(retry.BeforeNextTry(status));
  }
}

}  // namespace

absl::StatusOr<int> Events(const EventsOptions& options, const Words& words, Session* session) {
  LASP_ASSIGN_OR_RETURN(const Subject subject, ReadSubject(options, words, session));
  if (options.watch) {
    return WatchEvents(options, subject, session);
  }
  EventPrinter printer(options, session);
  LASP_ASSIGN_OR_RETURN(const Latest latest,
                        ListLatest(
                            subject, options.limit, 0,
                            [&](const Event& event) { return printer.Wants(event); }, session));
  Console& console = session->console();
  const OutputFormat format = session->options().output;
  if (!IsTable(format) && format != OutputFormat::kName) {
    console.Print(MessageArray(latest.events, format));
    return kExitOk;
  }
  for (const Event& event : latest.events) {
    printer.Print(event);
  }
  if (latest.events.empty()) {
    console.Note("no events");
  } else if (!latest.complete) {
    console.Note(absl::StrCat("the latest ", latest.events.size(), "; --limit shows more"));
  }
  return kExitOk;
}

}  // namespace lasp::client
