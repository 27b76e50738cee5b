#include "worker/engine/rank_channel.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <thread>
#include <vector>

#include "lasp/internal/v1/rank_channel.pb.h"

namespace lasp::worker {
namespace {

using ::lasp::internal::v1::FromRank;
using ::lasp::internal::v1::ToRank;

class RankChannelTest : public ::testing::Test {
 protected:
  RankChannelTest() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    left_ = std::make_unique<RankChannel>(ends[0], absl::Milliseconds(200));
    right_ = std::make_unique<RankChannel>(ends[1]);
  }

  std::unique_ptr<RankChannel> left_;
  std::unique_ptr<RankChannel> right_;
};

TEST_F(RankChannelTest, CarriesMessagesInOrderAndEndsWithThePeer) {
  ToRank first;
  first.mutable_setup()->set_world_size(7);
  ToRank second;
  second.mutable_drain();
  ASSERT_TRUE(left_->Write(first).ok());
  ASSERT_TRUE(left_->Write(second).ok());
  left_.reset();

  ToRank got;
  ASSERT_TRUE(right_->Read(&got).value());
  EXPECT_EQ(got.setup().world_size(), 7);
  ASSERT_TRUE(right_->Read(&got).value());
  EXPECT_TRUE(got.has_drain());
  EXPECT_FALSE(right_->Read(&got).value());
  EXPECT_EQ(right_->Write(second).code(), absl::StatusCode::kUnavailable);
}

TEST_F(RankChannelTest, RefusesFramesThatAreTornTooLongOrNoMessage) {
  const std::vector<std::string> bad = {std::string("\x08\x00\x00\x00\x01", 5),
                                        std::string("\xff\xff\xff\xff", 4),
                                        std::string("\x01\x00\x00\x00\xff", 5)};
  for (const std::string& bytes : bad) {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    RankChannel reader(ends[0]);
    ASSERT_EQ(::send(ends[1], bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    ::close(ends[1]);
    FromRank got;
    EXPECT_EQ(reader.Read(&got).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST_F(RankChannelTest, AWriterIsNotHeldUpForEverByAReaderThatDoesNotRead) {
  FromRank message;
  message.mutable_rank_address()->set_address(std::string(1 << 20, 'x'));
  absl::Status status;
  for (int i = 0; i < 64 && status.ok(); ++i) {
    status = left_->Write(message);
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(RankChannelTest, ShutdownEndsAReadOfAnotherThread) {
  std::thread reader([this] {
    ToRank got;
    EXPECT_FALSE(right_->Read(&got).value());
  });
  right_->Shutdown();
  reader.join();
}

TEST_F(RankChannelTest, ManyWritersDoNotInterleave) {
  std::vector<std::thread> writers;
  writers.reserve(4);
  for (int writer = 0; writer < 4; ++writer) {
    writers.emplace_back([this, writer] {
      for (int i = 0; i < 100; ++i) {
        FromRank message;
        message.mutable_step()->set_step(writer * 1000 + i);
        EXPECT_TRUE(left_->Write(message).ok());
      }
    });
  }
  std::vector<int64_t> next(4, 0);
  for (int i = 0; i < 400; ++i) {
    FromRank got;
    ASSERT_TRUE(right_->Read(&got).value());
    const int64_t writer = got.step().step() / 1000;
    EXPECT_EQ(got.step().step() % 1000, next[writer]++);
  }
  for (std::thread& writer : writers) {
    writer.join();
  }
}

}  // namespace
}  // namespace lasp::worker
