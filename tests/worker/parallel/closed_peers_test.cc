#include "worker/parallel/closed_peers.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <condition_variable>
#include <mutex>

#include "tests/support/status_matchers.h"

namespace lasp::worker {
namespace {

constexpr absl::Duration kGrace = absl::Milliseconds(50);

struct Connection {
  Connection() {
    std::array<int, 2> ends = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    here = UniqueFd(ends[0]);
    there = UniqueFd(ends[1]);
  }

  UniqueFd here;
  UniqueFd there;
};

// What a wait waits for.
class Ending {
 public:
  void Happen() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++count_;
    changed_.notify_all();
  }

  bool Within(std::chrono::milliseconds time) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, time, [this] { return count_ > 0; });
  }

  int count() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return count_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

class ClosedPeersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::vector<UniqueFd> sockets(3);
    sockets[1] = std::move(first_.here);
    sockets[2] = std::move(second_.here);
    auto peers = ClosedPeers::Watch(sockets, kGrace);
    LASP_ASSERT_OK(peers.status());
    peers_ = *std::move(peers);
    // As Gloo owns its own.
    sockets_ = std::move(sockets);
  }

  Connection first_;
  Connection second_;
  std::vector<UniqueFd> sockets_;
  std::unique_ptr<ClosedPeers> peers_;
};

TEST_F(ClosedPeersTest, AWaitForAPeerThatGoesEndsAndTheOthersDoNot) {
  Ending gone;
  Ending stays;
  const ClosedPeers::Wait first(peers_.get(), 1, [&] { gone.Happen(); });
  const ClosedPeers::Wait second(peers_.get(), 2, [&] { stays.Happen(); });
  first_.there = UniqueFd();
  EXPECT_TRUE(gone.Within(std::chrono::seconds(20)));
  EXPECT_TRUE(first.ended());
  EXPECT_FALSE(stays.Within(std::chrono::milliseconds(600)));
  EXPECT_FALSE(second.ended());
  EXPECT_EQ(gone.count(), 1);
}

TEST_F(ClosedPeersTest, AWaitThatBeginsAfterwardsEndsToo) {
  first_.there = UniqueFd();
  for (int i = 0; i < 2; ++i) {
    Ending ending;
    const ClosedPeers::Wait wait(peers_.get(), 1, [&] { ending.Happen(); });
    EXPECT_TRUE(ending.Within(std::chrono::seconds(20)));
  }
}

TEST_F(ClosedPeersTest, ThePeerSeesTheOtherEndClose) {
  Ending ending;
  {
    const ClosedPeers::Wait wait(peers_.get(), 1, [&] { ending.Happen(); });
    shutdown(first_.there.get(), SHUT_WR);
    ASSERT_TRUE(ending.Within(std::chrono::seconds(20)));
  }
  // Gloo closes its end; the watch must not hold it open.
  sockets_[1] = UniqueFd();
  char byte = 0;
  EXPECT_EQ(recv(first_.there.get(), &byte, 1, 0), 0);
}

TEST_F(ClosedPeersTest, EndsWhileWaitsAreUnderWay) {
  Ending ending;
  {
    const ClosedPeers::Wait wait(peers_.get(), 1, [&] { ending.Happen(); });
    EXPECT_FALSE(wait.ended());
  }
  first_.there = UniqueFd();
  peers_ = nullptr;
  EXPECT_EQ(ending.count(), 0);
}

}  // namespace
}  // namespace lasp::worker
