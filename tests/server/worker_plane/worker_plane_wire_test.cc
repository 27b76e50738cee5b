// What releases before said to each other, byte by byte, is still understood and answered.
//
// v1.messages and v1.contract were recorded with `record`. An agent of that release is played here
// from its own bytes; only the names of jobs are put in their place.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/protocol_range.h"
#include "tests/server/services/worker_plane_fixture.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using v1::ConnectRequest;
using v1::ConnectResponse;

struct Recorded {
  bool from_agent = false;
  std::string kind;
  std::string bytes;
};

std::ifstream Fixture(const std::string& name) {
  std::ifstream file(std::string(LASP_WIRE_FIXTURES "/") + name);
  EXPECT_TRUE(file.is_open()) << name;
  return file;
}

std::vector<Recorded> Recording() {
  std::ifstream file = Fixture("v1.messages");
  std::vector<Recorded> messages;
  std::string sender;
  std::string kind;
  std::string hex;
  while (file >> sender >> kind >> hex) {
    messages.push_back({sender == "agent", kind, absl::HexStringToBytes(hex)});
  }
  return messages;
}

template <typename M>
M Parse(const Recorded& recorded) {
  M message;
  EXPECT_TRUE(message.ParseFromString(recorded.bytes)) << recorded.kind;
  return message;
}

const Recorded& First(const std::vector<Recorded>& messages, const std::string& kind) {
  for (const Recorded& recorded : messages) {
    if (recorded.kind == kind) {
      return recorded;
    }
  }
  ADD_FAILURE() << "none of " << kind;
  return messages.front();
}

// The body's field, or null.
const FieldDescriptor* BodyOf(const Message& message) {
  return message.GetReflection()->GetOneofFieldDescriptor(
      message, message.GetDescriptor()->FindOneofByName("body"));
}

v1::Fence* FenceOf(ConnectRequest* request) {
  Message* body = request->GetReflection()->MutableMessage(request, BodyOf(*request));
  const FieldDescriptor* fence = body->GetDescriptor()->FindFieldByName("fence");
  return fence == nullptr
             ? nullptr
             : static_cast<v1::Fence*>(body->GetReflection()->MutableMessage(body, fence));
}

// Paths that are set in `recorded` and not in `answer`. A job's spec is its own.
void Missing(const Message& recorded, const Message& answer, const std::string& path,
             std::vector<std::string>* missing) {
  std::vector<const FieldDescriptor*> fields;
  recorded.GetReflection()->ListFields(recorded, &fields);
  for (const FieldDescriptor* field : fields) {
    const auto& reflection = *answer.GetReflection();
    const std::string name = absl::StrCat(path, field->name());
    const bool there = field->is_repeated() ? reflection.FieldSize(answer, field) > 0
                                            : reflection.HasField(answer, field);
    if (!there) {
      missing->push_back(name);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_repeated() &&
               field->name() != "spec") {
      Missing(recorded.GetReflection()->GetMessage(recorded, field),
              reflection.GetMessage(answer, field), name + ".", missing);
    }
  }
}

TEST(WorkerPlaneWireTest, NoFieldOfTheContractHasChanged) {
  std::ifstream file = Fixture("v1.contract");
  int fields = 0;
  for (std::string line; std::getline(file, line); ++fields) {
    std::istringstream words(line);
    std::string message;
    std::string name;
    std::string type_name;
    int number = 0;
    int type = 0;
    int label = 0;
    words >> message >> number >> name >> type >> label >> type_name;
    const auto* descriptor =
        google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(message);
    ASSERT_NE(descriptor, nullptr) << line;
    const FieldDescriptor* field = descriptor->FindFieldByNumber(number);
    ASSERT_NE(field, nullptr) << line;
    EXPECT_EQ(field->name(), name) << line;
    EXPECT_EQ(field->type(), type) << line;
    EXPECT_EQ(field->label(), label) << line;
    EXPECT_EQ(field->message_type() == nullptr ? "" : field->message_type()->full_name(), type_name)
        << line;
  }
  EXPECT_GT(fields, 100);
}

TEST(WorkerPlaneWireTest, EveryRecordedMessageIsRead) {
  const auto messages = Recording();
  for (const Recorded& recorded : messages) {
    ConnectRequest request;
    ConnectResponse response;
    Message& message = recorded.from_agent ? static_cast<Message&>(request) : response;
    ASSERT_TRUE(message.ParseFromString(recorded.bytes));
    ASSERT_NE(BodyOf(message), nullptr);
    EXPECT_EQ(BodyOf(message)->name(), recorded.kind);
    EXPECT_EQ(message.SerializeAsString(), recorded.bytes) << recorded.kind;
  }
  for (const char* kind : {"hello", "heartbeat", "rank_address", "rank_ready", "step_reports",
                           "log_chunk", "rank_exited", "draining", "welcome", "assignment",
                           "peer_addresses", "start", "stop", "ack", "log_position"}) {
    EXPECT_EQ(First(messages, kind).kind, kind);
  }
}

// An agent of that release against the present coordinator.
class RecordedAgentTest : public WorkerPlaneFixture {
 protected:
  // What it said of ranks of its job `short` or `long`, about the job with these fences instead.
  std::vector<ConnectRequest> Said(const std::string& kind, const std::string& job,
                                   const std::vector<v1::Fence>& fences) {
    std::vector<ConnectRequest> said;
    for (const Recorded& recorded : messages_) {
      if (!recorded.from_agent || recorded.kind != kind) {
        continue;
      }
      auto request = Parse<ConnectRequest>(recorded);
      v1::Fence* fence = FenceOf(&request);
      if (absl::EndsWith(fence->training_job(), "/" + job)) {
        *fence = fences.at(static_cast<size_t>(fence->rank()));
        said.push_back(std::move(request));
      }
    }
    EXPECT_FALSE(said.empty()) << kind << " of " << job;
    return said;
  }

  // The coordinator's answer of this kind, which has all that its predecessor's had.
  void ExpectAnswer(FakeAgent* agent, ConnectResponse::BodyCase kind) {
    const auto answer = agent->Await(kind);
    ASSERT_TRUE(answer.has_value()) << kind;
    const std::string name = BodyOf(*answer)->name();
    std::vector<std::string> missing;
    Missing(Parse<ConnectResponse>(First(messages_, name)), *answer, "", &missing);
    // What was acknowledged with it is another matter.
    std::erase(missing, "acked_sequence");
    // Zeroes are not sent: of a rank, a slot, the end of a log.
    std::erase_if(missing, [&name](const std::string& path) {
      return path == name + ".fence.rank" || path == name + ".slot" || path == name + ".offset";
    });
    EXPECT_THAT(missing, IsEmpty()) << name;
  }

  std::unique_ptr<FakeAgent> Begin(const v1::Hello& hello) {
    auto agent = NewAgent(hello.worker_id(), 0);
    agent->SendHello(hello);
    return agent;
  }

  const std::vector<Recorded> messages_ = Recording();
};

TEST_F(RecordedAgentTest, TrainsAJobToItsEnd) {
  const auto hello = Parse<ConnectRequest>(First(messages_, "hello")).hello();
  EXPECT_EQ(hello.protocol_version(), 1);
  const auto agent = Begin(hello);
  ExpectAnswer(agent.get(), ConnectResponse::kWelcome);
  agent->Send(Parse<ConnectRequest>(First(messages_, "heartbeat")));
  LASP_ASSERT_OK(server_.Create("now", 2));
  const std::vector<v1::Fence> fences = TakeAssignments(agent.get(), 2);
  ASSERT_EQ(fences.size(), 2);
  for (auto& address : Said("rank_address", "short", fences)) {
    agent->Send(std::move(address));
  }
  ExpectAnswer(agent.get(), ConnectResponse::kPeerAddresses);
  for (auto& ready : Said("rank_ready", "short", fences)) {
    agent->Send(std::move(ready));
  }
  ExpectAnswer(agent.get(), ConnectResponse::kStart);
  AwaitState("now", v1::TrainingJob::STATE_RUNNING);
  for (auto& chunk : Said("log_chunk", "short", fences)) {
    agent->Send(std::move(chunk));
  }
  for (const char* kind : {"step_reports", "rank_exited"}) {
    for (auto& message : Said(kind, "short", fences)) {
      EXPECT_TRUE(agent->AwaitAck(agent->Send(std::move(message)))) << kind;
    }
  }
  const v1::TrainingJob done = AwaitState("now", v1::TrainingJob::STATE_SUCCEEDED);
  EXPECT_EQ(done.progress().step(), 5);
}

TEST_F(RecordedAgentTest, ComesBackIsStoppedAndDrains) {
  std::vector<v1::Hello> hellos;
  for (const Recorded& recorded : messages_) {
    if (recorded.kind == "hello") {
      hellos.push_back(Parse<ConnectRequest>(recorded).hello());
    }
  }
  ASSERT_EQ(hellos.size(), 2);
  auto agent = Begin(hellos[0]);
  ASSERT_TRUE(agent->Await(ConnectResponse::kWelcome).has_value());
  LASP_ASSERT_OK(server_.Create("now", 2));
  const std::vector<v1::Fence> fences = TakeAssignments(agent.get(), 2);
  ASSERT_EQ(fences.size(), 2);
  Connect(agent.get(), fences);
  AwaitState("now", v1::TrainingJob::STATE_RUNNING);
  // The connection breaks; the ranks train on and are adopted.
  agent = nullptr;
  ASSERT_EQ(hellos[1].ranks_size(), 2);
  for (v1::RankStatus& rank : *hellos[1].mutable_ranks()) {
    *rank.mutable_fence() = fences.at(static_cast<size_t>(rank.fence().rank()));
  }
  agent = Begin(hellos[1]);
  ExpectAnswer(agent.get(), ConnectResponse::kWelcome);
  ExpectAnswer(agent.get(), ConnectResponse::kLogPosition);
  EXPECT_EQ(AwaitState("now", v1::TrainingJob::STATE_RUNNING).generation(), 1);
  LASP_ASSERT_OK(server_.Cancel("now"));
  ExpectAnswer(agent.get(), ConnectResponse::kStop);
  for (int rank = 0; rank < 2; ++rank) {
    agent->Send(Exit(fences[static_cast<size_t>(rank)], rank, 137, 3));
  }
  AwaitState("now", v1::TrainingJob::STATE_CANCELLED);
  agent->Send(Parse<ConnectRequest>(First(messages_, "draining")));
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  v1::Worker::State state = v1::Worker::STATE_READY;
  while (state != v1::Worker::STATE_DRAINED && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
    state = GetWorker(hellos[0].worker_id()).value().state();
  }
  EXPECT_EQ(state, v1::Worker::STATE_DRAINED);
}

TEST_F(RecordedAgentTest, VersionsThatDoNotMeetAreRefusedByName) {
  const auto hello = Parse<ConnectRequest>(First(messages_, "hello")).hello();

  const struct {
    int oldest;
    int newest;
    const char* says;
  } others[] = {
      {kWorkerProtocol.newest + 1, kWorkerProtocol.newest + 2, "upgrade lasp-server"},
      {kWorkerProtocol.oldest - 1, 0, "upgrade lasp-worker"},
  };

  for (const auto& other : others) {
    v1::Hello stranger = hello;
    stranger.set_protocol_version(other.oldest);
    stranger.set_newest_protocol_version(other.newest);
    const absl::Status end = Begin(stranger)->AwaitEnd();
    EXPECT_EQ(ErrorReason(end), "PROTOCOL_VERSION_MISMATCH");
    EXPECT_THAT(end, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(other.says)));
    EXPECT_THAT(end.ToString(), HasSubstr(AgentProtocol(stranger).ToString()));
    EXPECT_THAT(end.ToString(), HasSubstr(kWorkerProtocol.ToString()));
  }
}

TEST_F(RecordedAgentTest, ALaterAgentGetsTheNewestVersionOfBoth) {
  v1::Hello hello = Parse<ConnectRequest>(First(messages_, "hello")).hello();
  hello.set_newest_protocol_version(99);
  const auto welcome = Begin(hello)->Await(ConnectResponse::kWelcome);
  ASSERT_TRUE(welcome.has_value());
  EXPECT_EQ(welcome->welcome().protocol_version(), kWorkerProtocol.newest);
}

TEST(ProtocolRangeTest, TheNewestThatBothSpeak) {
  EXPECT_EQ(CommonVersion({1, 1}, {1, 2}), 1);
  EXPECT_EQ(CommonVersion({1, 2}, {2, 3}), 2);
  EXPECT_EQ(CommonVersion({1, 5}, {2, 3}), 3);
  EXPECT_EQ(CommonVersion({1, 1}, {2, 3}), std::nullopt);
  EXPECT_EQ(CommonVersion({4, 5}, {2, 3}), std::nullopt);
}

}  // namespace
}  // namespace lasp::server
