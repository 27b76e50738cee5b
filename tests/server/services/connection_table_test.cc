#include "server/connection_table.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/spec/unique_fd.h"
#include "tests/server/core/fake_clock.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::FakeClock;
using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

// A socket, connected to nobody.
UniqueFd NewSocket() { return UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

class ConnectionTableTest : public ::testing::Test {
 protected:
  std::string PeerOf(int host, int port) { return absl::StrCat("ipv4:10.0.0.", host, ":", port); }

  FakeClock clock_;
  std::vector<std::string> refused_;
  ConnectionTable table_{{.all = 5,
                          .a_host = 3,
                          .a_principal = 2,
                          .calls_a_second = 10,
                          .flood_ban = absl::Seconds(7)},
                         &clock_,
                         [this](const char* flag) { refused_.emplace_back(flag); }};
};

TEST_F(ConnectionTableTest, BoundsAHostAndAll) {
  std::vector<UniqueFd> open;
  const auto connect = [&](int host, int port) {
    open.push_back(NewSocket());
    return table_.Add(open.back().get(), PeerOf(host, port));
  };
  for (int port = 1; port <= 3; ++port) {
    LASP_EXPECT_OK(connect(1, port));
  }
  const absl::Status refused = connect(1, 4);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("ipv4:10.0.0.1 has 3 connections")));
  EXPECT_EQ(ErrorReason(refused), "TOO_MANY_CONNECTIONS");
  LASP_EXPECT_OK(connect(2, 1));
  LASP_EXPECT_OK(connect(3, 1));
  EXPECT_THAT(connect(4, 1),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("--max_connections ")));
  EXPECT_EQ(refused_, (std::vector<std::string>{"max_connections_a_host", "max_connections"}));

  // One that has ended makes room, also where its descriptor's number is another's by now.
  clock_.Advance(absl::Seconds(1));
  open.erase(open.begin(), open.begin() + 2);
  const UniqueFd other = NewSocket();
  LASP_EXPECT_OK(connect(1, 5));
  EXPECT_EQ(table_.size(), 4U);
  open.clear();
  clock_.Advance(absl::Seconds(1));
  table_.Sweep();
  EXPECT_EQ(table_.size(), 0U);
}

TEST_F(ConnectionTableTest, PartsComeRoundToEveryConnection) {
  ConnectionTable table({.all = 1'000, .a_host = 1'000}, &clock_, [](const char*) {});
  std::vector<UniqueFd> open;
  const auto connect = [&](int port) {
    open.push_back(NewSocket());
    return table.Add(open.back().get(), PeerOf(1, port));
  };
  for (int port = 1; port <= 300; ++port) {
    LASP_ASSERT_OK(connect(port));
  }
  // Every third ends.
  for (size_t i = 0; i < 300; i += 3) {
    open[i] = UniqueFd();
  }
  absl::Duration took;
  while (table.size() > 200 && took < absl::Seconds(1)) {
    const size_t before = table.size();
    took += table.SweepPart();
    EXPECT_LE(before - table.size(), 30U);  // those of a quarter
  }
  EXPECT_EQ(table.size(), 200U);
  EXPECT_LE(took, absl::Milliseconds(350));  // fewer, and so larger parts towards the end
  // Few are looked at all at once, and from the beginning again.
  open.clear();
  while (table.size() > 0) {
    table.SweepPart();
  }
  LASP_ASSERT_OK(connect(1));
  EXPECT_EQ(table.SweepPart(), absl::Milliseconds(250));
  EXPECT_EQ(table.size(), 1U);
}

TEST_F(ConnectionTableTest, BoundsWhatATokenCallsOver) {
  std::vector<UniqueFd> open;
  for (int host = 1; host <= 3; ++host) {
    open.push_back(NewSocket());
    LASP_EXPECT_OK(table_.Add(open.back().get(), PeerOf(host, 1)));
  }
  for (int again = 0; again < 2; ++again) {
    LASP_EXPECT_OK(table_.Use(PeerOf(1, 1), "ann"));
    LASP_EXPECT_OK(table_.Use(PeerOf(2, 1), "ann"));
  }
  const absl::Status refused = table_.Use(PeerOf(3, 1), "ann");
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("--max_connections_a_principal")));
  EXPECT_EQ(ErrorReason(refused), "TOO_MANY_CONNECTIONS");
  LASP_EXPECT_OK(table_.Use(PeerOf(3, 1), "bob"));
  LASP_EXPECT_OK(table_.Use("ipv4:10.0.0.9:9", "ann"));  // not in the table
  clock_.Advance(absl::Seconds(1));
  open.erase(open.begin());
  LASP_EXPECT_OK(table_.Use(PeerOf(3, 1), "ann"));
}

TEST_F(ConnectionTableTest, HangsUpOnWhoBeginsCallsWithoutEnd) {
  const auto connect = [this](int host, int port, UniqueFd* near, UniqueFd* far) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    *near = UniqueFd(ends[0]);
    *far = UniqueFd(ends[1]);
    return table_.Add(near->get(), PeerOf(host, port));
  };
  const auto ended = [](const UniqueFd& far) {
    char byte = 0;
    return recv(far.get(), &byte, 1, MSG_DONTWAIT) == 0;
  };
  UniqueFd near[4];
  UniqueFd far[4];
  LASP_ASSERT_OK(connect(1, 1, &near[0], &far[0]));
  LASP_ASSERT_OK(connect(1, 2, &near[1], &far[1]));
  LASP_ASSERT_OK(connect(2, 1, &near[2], &far[2]));
  table_.BeginCall("ipv4:10.0.0.9:9");  // not in the table
  for (int i = 0; i < 10; ++i) {
    table_.BeginCall(PeerOf(1, 1));
    table_.BeginCall(PeerOf(2, 1));
  }
  clock_.Advance(absl::Milliseconds(500));
  for (int i = 0; i < 5; ++i) {
    table_.BeginCall(PeerOf(1, 1));
    table_.BeginCall(PeerOf(2, 1));
  }
  EXPECT_FALSE(ended(far[0]));
  EXPECT_TRUE(refused_.empty());
  for (int i = 0; i < 100; ++i) {
    table_.BeginCall(PeerOf(1, 1));
  }
  EXPECT_TRUE(ended(far[0]));
  EXPECT_FALSE(ended(far[1]));
  EXPECT_FALSE(ended(far[2]));
  EXPECT_EQ(refused_, (std::vector<std::string>{"max_connection_calls_a_second"}));

  // Its host alone is banned, for a while.
  const absl::Status banned = connect(1, 3, &near[3], &far[3]);
  EXPECT_THAT(banned, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("10.0.0.1")));
  EXPECT_EQ(ErrorReason(banned), "FLOODED");
  EXPECT_EQ(refused_.back(), "flood_ban");
  LASP_EXPECT_OK(connect(2, 2, &near[3], &far[3]));
  clock_.Advance(absl::Seconds(7));
  LASP_EXPECT_OK(connect(1, 3, &near[3], &far[3]));
}

// Two ends of a TCP connection, which the kernel counts the bytes of.
std::pair<UniqueFd, UniqueFd> TcpPair() {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(listen(listener.get(), 1), 0);
  EXPECT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  UniqueFd far(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(far.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  UniqueFd near(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  return {std::move(near), std::move(far)};
}

TEST_F(ConnectionTableTest, HangsUpOnAHostThatSendsTooMuch) {
  const auto ended = [](const UniqueFd& far) {
    char byte = 0;
    return recv(far.get(), &byte, 1, MSG_DONTWAIT) == 0;
  };
  const auto send_bytes = [](const std::pair<UniqueFd, UniqueFd>& pair, size_t count) {
    const std::string bytes(count, 'x');
    std::string taken(count, ' ');
    ASSERT_EQ(write(pair.second.get(), bytes.data(), count), static_cast<ssize_t>(count));
    ASSERT_EQ(recv(pair.first.get(), taken.data(), count, MSG_WAITALL),
              static_cast<ssize_t>(count));
  };
  ConnectionTable table({.all = 9, .host_bytes_a_second = 1000}, &clock_,
                        [this](const char* flag) { refused_.emplace_back(flag); });
  const auto pouring = TcpPair();
  const auto beside = TcpPair();
  const auto silent = TcpPair();
  const auto other = TcpPair();
  LASP_ASSERT_OK(table.Add(pouring.first.get(), PeerOf(1, 1)));
  LASP_ASSERT_OK(table.Add(beside.first.get(), PeerOf(1, 2)));
  LASP_ASSERT_OK(table.Add(silent.first.get(), PeerOf(1, 3)));
  LASP_ASSERT_OK(table.Add(other.first.get(), PeerOf(2, 1)));
  const auto sweep = [&] {
    clock_.Advance(absl::Milliseconds(250));
    table.Sweep();
  };
  // What is allowed at once, and then what comes back in a second.
  send_bytes(pouring, 2000);
  send_bytes(beside, 2000);
  send_bytes(other, 2000);
  sweep();
  for (int quarter = 0; quarter < 4; ++quarter) {
    send_bytes(pouring, 240);
    sweep();
  }
  EXPECT_TRUE(refused_.empty());
  send_bytes(pouring, 1000);
  send_bytes(beside, 1000);
  send_bytes(other, 1000);
  sweep();
  EXPECT_TRUE(ended(pouring.second));
  EXPECT_TRUE(ended(beside.second));
  // It has sent nothing; and another host is another.
  EXPECT_FALSE(ended(silent.second));
  EXPECT_FALSE(ended(other.second));
  EXPECT_EQ(refused_, (std::vector<std::string>(2, "max_host_bytes_a_second")));
}

}  // namespace
}  // namespace lasp::server
