// How ranks find one another, and who is not let in.
#include "worker/parallel/gloo_mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/spec/unique_fd.h"
#include "tests/support/status_matchers.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kHost[] = "127.0.0.1";

std::unique_ptr<GlooMesh> Mesh(int rank, int size, absl::Duration timeout = absl::Seconds(20),
                               absl::string_view generation = "job/1") {
  return GlooMesh::Create(rank, size, generation, kHost, timeout).value();
}

// A connection to where the rank of this address listens: the last five bytes or fewer are its
// port.
UniqueFd Knock(const std::string& address, absl::string_view text) {
  const size_t port_at = address.find_last_not_of("0123456789") + 1;
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(port_at), &port));
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) {
    ADD_FAILURE() << "no socket";
    return socket;
  }
  EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  if (!text.empty()) {
    EXPECT_GT(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL), 0);
  }
  return socket;
}

// Each rank connects on a thread of its own, and then sends its number to every other.
std::vector<absl::Status> ConnectAll(const std::vector<GlooMesh*>& meshes,
                                     const std::vector<std::string>& addresses) {
  std::vector<absl::Status> statuses(meshes.size());
  std::vector<std::thread> threads;
  threads.reserve(meshes.size());
  for (size_t rank = 0; rank < meshes.size(); ++rank) {
    threads.emplace_back([&, rank] { statuses[rank] = meshes[rank]->Connect(addresses); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return statuses;
}

void ExpectToTalk(GlooMesh& from, GlooMesh& to) {
  int sent = 100 + from.rank();
  int received = 0;
  const auto receive = to.Receive(from.rank(), 7, &received, sizeof received).value();
  const auto send = from.Send(to.rank(), 7, &sent, sizeof sent).value();
  EXPECT_TRUE(receive->Wait(absl::Seconds(10)).ok());
  EXPECT_TRUE(send->Wait(absl::Seconds(10)).ok());
  EXPECT_EQ(received, sent);
}

TEST(GlooMeshTest, StrangersWhoComeFirstAreHungUpOnAndDisturbNobody) {
  constexpr int kRanks = 3;
  std::vector<std::unique_ptr<GlooMesh>> meshes;
  meshes.reserve(kRanks);
  std::vector<GlooMesh*> pointers;
  std::vector<std::string> addresses;
  std::vector<UniqueFd> strangers;
  for (int rank = 0; rank < kRanks; ++rank) {
    meshes.push_back(Mesh(rank, kRanks));
    pointers.push_back(meshes.back().get());
    addresses.push_back(meshes.back()->Address());
    // One says nothing, one speaks another protocol, one has left again.
    strangers.push_back(Knock(addresses.back(), ""));
    strangers.push_back(Knock(addresses.back(), std::string(200, 'G')));
    Knock(addresses.back(), "");
  }
  for (const absl::Status& status : ConnectAll(pointers, addresses)) {
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  for (GlooMesh* const from : pointers) {
    for (GlooMesh* const to : pointers) {
      if (from != to) {
        ExpectToTalk(*from, *to);
      }
    }
  }
  // None of them has been left connected.
  for (const UniqueFd& stranger : strangers) {
    char byte = 0;
    EXPECT_LE(::recv(stranger.get(), &byte, 1, 0), 0);
  }
}

TEST(GlooMeshTest, AFloodOfSilentStrangersDoesNotKeepAPeerOut) {
  auto left = Mesh(0, 2);
  auto right = Mesh(1, 2);
  std::vector<UniqueFd> held;
  held.reserve(400);
  // More than a rank listens to at a time.
  for (int i = 0; i < 400; ++i) {
    held.push_back(Knock(left->Address(), ""));
  }
  for (const absl::Status& status :
       ConnectAll({left.get(), right.get()}, {left->Address(), right->Address()})) {
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  ExpectToTalk(*left, *right);
}

TEST(GlooMeshTest, WhoDoesNotKnowTheSecretIsNoPeer) {
  auto left = Mesh(0, 2, absl::Seconds(1));
  auto right = Mesh(1, 2, absl::Seconds(1));
  std::string forged = left->Address();
  forged[2] = forged[2] == 'x' ? 'y' : 'x';  // the first character of the secret
  absl::Status right_status;
  std::thread stranger([&] { right_status = right->Connect({forged, right->Address()}); });
  const absl::Status status = left->Connect({left->Address(), right->Address()});
  stranger.join();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("with rank 1")));
  EXPECT_THAT(right_status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("does not know")));
}

// A rank of an earlier generation, or of another job, has secrets of its own.
TEST(GlooMeshTest, ARankOfAnotherGenerationDoesNotTakeAPeersPlace) {
  auto left = Mesh(0, 2);
  auto right = Mesh(1, 2);
  auto other = Mesh(1, 2, absl::Seconds(1));
  absl::Status other_status;
  std::thread stranger([&] {
    std::string of_another = Mesh(0, 2)->Address();
    // Its secret, and where our rank 0 listens.
    const std::string mixed = of_another.substr(0, 38) + left->Address().substr(38);
    other_status = other->Connect({mixed, other->Address()});
  });
  for (const absl::Status& status :
       ConnectAll({left.get(), right.get()}, {left->Address(), right->Address()})) {
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  stranger.join();
  EXPECT_THAT(other_status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank 0")));
  ExpectToTalk(*right, *left);
}

// Not even one that got hold of all our secrets.
TEST(GlooMeshTest, TheProofIsOfOneJobAndGeneration) {
  auto left = Mesh(0, 2, absl::Seconds(1));
  auto right = Mesh(1, 2, absl::Seconds(1), "job/2");
  const std::vector<absl::Status> statuses =
      ConnectAll({left.get(), right.get()}, {left->Address(), right->Address()});
  EXPECT_THAT(statuses[0], StatusIs(absl::StatusCode::kUnavailable, HasSubstr("with rank 1")));
  EXPECT_THAT(statuses[1], StatusIs(absl::StatusCode::kUnavailable, HasSubstr("does not know")));
}

// The key is made of every rank's secret: two that agree on theirs but not on a third's are not of
// one generation.
TEST(GlooMeshTest, TheKeyIsOfAllRanks) {
  auto left = Mesh(0, 3, absl::Seconds(1));
  auto right = Mesh(1, 3, absl::Seconds(1));
  const std::string one = Mesh(2, 3)->Address();
  const std::string other = Mesh(2, 3)->Address();
  absl::Status right_status;
  std::thread right_thread(
      [&] { right_status = right->Connect({left->Address(), right->Address(), other}); });
  const absl::Status left_status = left->Connect({left->Address(), right->Address(), one});
  right_thread.join();
  EXPECT_THAT(left_status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("with rank 1")));
  EXPECT_THAT(right_status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("does not know")));
}

TEST(GlooMeshTest, GivingUpEndsTheWaitForAPeer) {
  auto mesh = Mesh(0, 2, absl::Minutes(1));
  auto other = Mesh(1, 2);
  const absl::Duration begin = SystemClock().Monotonic();
  const absl::Status status = mesh->Connect({mesh->Address(), other->Address()}, [begin] {
    return SystemClock().Monotonic() - begin > absl::Milliseconds(100);
  });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kCancelled, HasSubstr("give up")));
  EXPECT_LT(SystemClock().Monotonic() - begin, absl::Seconds(5));
}

TEST(GlooMeshTest, TornAddressesAndMissingPeersAreErrors) {
  const auto connect = [](const std::string& other) {
    auto mesh = Mesh(0, 2, absl::Milliseconds(300));
    return mesh->Connect({mesh->Address(), other});
  };
  auto mesh = Mesh(0, 2);
  EXPECT_THAT(mesh->Connect({mesh->Address()}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1 ranks")));
  for (const std::string& torn : {std::string("\x05"), std::string(), mesh->Address() + "x"}) {
    EXPECT_THAT(connect(torn), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("torn")));
  }
  EXPECT_THAT(connect(Mesh(1, 2)->Address()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank 1 within 300ms")));
  EXPECT_THAT(GlooMesh::Create(0, 2, "job/1", "no.such.host.invalid", absl::Seconds(1)).status(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no.such.host.invalid")));
}

}  // namespace
}  // namespace lasp::worker
