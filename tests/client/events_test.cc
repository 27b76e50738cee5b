// Events, as the real program shows and follows them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/client/commands_fixture.h"

namespace lasp::client {
namespace {

using lasp::v1::Event;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kJob[] = "projects/default/trainingJobs/quickstart";

Event Made(int64_t sequence, const std::string& subject, const std::string& to,
           const std::string& reason, Event::Severity severity = Event::SEVERITY_NORMAL) {
  Event event;
  event.set_sequence(sequence);
  event.mutable_time()->set_seconds(1'780'000'000 + sequence);
  event.set_subject(subject);
  event.set_to_state(to);
  event.set_reason(reason);
  event.set_actor("scheduler");
  event.set_message("message " + std::to_string(sequence));
  event.set_severity(severity);
  return event;
}

class EventsTest : public CommandsFixture {
 protected:
  EventsTest() {
    server_.PutJob(RunningJob("quickstart", 5));
    server_.PutEvent(Made(1, kJob, "QUEUED", "SUBMITTED"));
    server_.PutEvent(Made(2, "workers/host", "READY", "REGISTERED"));
    server_.PutEvent(Made(3, kJob, "RECOVERING", "RANK_KILLED", Event::SEVERITY_WARNING));
  }

  static size_t Lines(const std::string& text) {
    return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  }
};

TEST_F(EventsTest, AreListedOldestFirst) {
  const ProcessResult all = Run({"events"}, "", {{"TZ", "UTC"}});
  EXPECT_EQ(all.exit_code, 0) << all.error;
  EXPECT_EQ(
      all.out,
      "TIME             SUBJECT               STATE       GEN  REASON            BY           "
      "MESSAGE\n"
      "May 28 20:26:41  job/quickstart        QUEUED        -  SUBMITTED         scheduler    "
      "message 1\n"
      "May 28 20:26:42  worker/host           READY         -  REGISTERED        scheduler    "
      "message 2\n"
      "May 28 20:26:43  job/quickstart        RECOVERING    -  RANK_KILLED       scheduler    "
      "message 3\n");
  EXPECT_EQ(server_.last_events().parent(), "projects/default");
  EXPECT_EQ(Lines(Run({"events", "quickstart"}).out), 3U);
  EXPECT_EQ(server_.last_events().subject(), kJob);
  EXPECT_EQ(Lines(Run({"events", "worker", "host"}).out), 2U);
  EXPECT_EQ(server_.last_events().subject(), "workers/host");
  EXPECT_EQ(Lines(Run({"events", "--warnings", "--all-projects"}).out), 2U);
  EXPECT_EQ(server_.last_events().parent(), "projects/-");
  const auto array = json::parse(Run({"events", "-o", "json", "-n", "2"}).out);
  ASSERT_EQ(array.size(), 2U);
  EXPECT_EQ(array[0]["sequence"], 2);
  EXPECT_EQ(array[1]["severity"], "WARNING");
  const ProcessResult some = Run({"events", "-n", "1"});
  EXPECT_THAT(some.out, AllOf(HasSubstr("message 3"), Not(HasSubstr("message 2"))));
  EXPECT_THAT(some.error, HasSubstr("the latest 1; --limit shows more"));
  EXPECT_EQ(Run({"events", "nothing"}).exit_code, 3);
  EXPECT_EQ(Run({"events", "a", "b"}).exit_code, 2);
}

TEST_F(EventsTest, CannotSteerATerminal) {
  Event event = Made(4, "workers/host", "READY", "REGISTERED");
  event.set_message("red \x1b[31m\nnew line");
  server_.PutEvent(event);
  const ProcessResult result = Run({"events", "worker/host"});
  EXPECT_THAT(result.out, AllOf(Not(HasSubstr("\x1b")), HasSubstr("red [31m new line")));
}

TEST_F(EventsTest, OfAJobAreWatchedUntilItsEnd) {
  int watches = 0;
  server_.OnWatch([&watches](FakeServer* server) {
    if (++watches == 1) {
      server->PutEvent(Made(4, "workers/host", "LOST", "AGENT_LOST", Event::SEVERITY_WARNING));
      server->BreakWatches();
    } else {
      server->PutEvent(Made(5, kJob, "RUNNING", "TRAINING"));
      server->PutEvent(Made(6, kJob, "SUCCEEDED", "ALL_STEPS_DONE"));
    }
  });
  const ProcessResult result = Run({"events", "quickstart", "--watch", "-o", "json"});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  std::string seen;
  for (const absl::string_view line : absl::StrSplit(result.out, '\n', absl::SkipEmpty())) {
    absl::StrAppend(&seen, json::parse(line.begin(), line.end())["sequence"].get<int>(), " ");
  }
  EXPECT_EQ(seen, "1 3 5 6 ");
  EXPECT_GE(watches, 2);
}

TEST_F(EventsTest, OfAJobThatHasEndedAreWatchedNoLonger) {
  server_.PutEvent(Made(4, kJob, "SUCCEEDED", "ALL_STEPS_DONE"));
  // Its end is no warning, and an end nevertheless.
  for (const bool warnings : {false, true}) {
    std::vector<std::string> words = {"events", "quickstart", "--watch"};
    if (warnings) {
      words.emplace_back("--warnings");
    }
    const ProcessResult result = Run(words);
    EXPECT_EQ(result.exit_code, 0) << result.error;
    EXPECT_EQ(Lines(result.out), warnings ? 2U : 4U) << result.out;
  }
}

TEST_F(EventsTest, WhatWasMissedIsSaid) {
  server_.OnWatch([](FakeServer* server) {
    // Four and five are gone before the watch has seen them.
    server->ForgetEvents(5);
    server->PutEvent(Made(6, kJob, "RUNNING", "TRAINING"));
    server->PutEvent(Made(7, kJob, "FAILED", "RANK_FAILED", Event::SEVERITY_WARNING));
  });
  const ProcessResult result = Run({"events", "quickstart", "-w"});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("message 3"), HasSubstr("message 6"), HasSubstr("message 7")));
}

}  // namespace
}  // namespace lasp::client
