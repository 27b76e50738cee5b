#include "server/refusal_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/server/core/fake_clock.h"

namespace lasp::server {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

class RefusalLogTest : public ::testing::Test {
 protected:
  void Refuse(const std::string& who, const std::string& resource = "r") {
    log_.Add({.principal = who, .role = "viewer", .peer = "ipv4:192.0.2.1"}, "S.Method", resource,
             absl::PermissionDeniedError("no"));
  }

  testing::FakeClock clock_;
  RefusalLog log_{&clock_};
};

TEST_F(RefusalLogTest, TheFirstComesAtOnceAndTheOthersAreCounted) {
  Refuse("eve", "first");
  auto taken = log_.Take();
  ASSERT_THAT(taken, SizeIs(1));
  EXPECT_EQ(taken[0].resource(), "first");
  EXPECT_EQ(taken[0].count(), 1);
  for (int i = 0; i < 1'000; ++i) {
    Refuse("eve", absl::StrCat(i));
  }
  EXPECT_THAT(log_.Take(), IsEmpty());
  clock_.Advance(absl::Seconds(59));
  EXPECT_THAT(log_.Take(), IsEmpty());
  clock_.Advance(absl::Seconds(1));
  taken = log_.Take();
  ASSERT_THAT(taken, SizeIs(1));
  EXPECT_EQ(taken[0].count(), 1'000);
  EXPECT_EQ(taken[0].resource(), "0");
  clock_.Advance(absl::Minutes(2));
  EXPECT_THAT(log_.Take(), IsEmpty());
}

TEST_F(RefusalLogTest, AStopTakesEverything) {
  Refuse("eve");
  EXPECT_THAT(log_.Take(), SizeIs(1));
  Refuse("eve");
  EXPECT_THAT(log_.Take(/*all=*/true), SizeIs(1));
}

TEST_F(RefusalLogTest, KindsAreBounded) {
  int64_t count = 0;
  constexpr int kMany = 10'000;
  for (int i = 0; i < kMany; ++i) {
    Refuse(absl::StrCat("eve-", i));
  }
  const auto taken = log_.Take();
  EXPECT_EQ(taken.size(), RefusalLog::kMaxKinds + 1);
  for (const auto& record : taken) {
    count += record.count();
  }
  EXPECT_EQ(count, kMany);
  // They are forgotten, and there is room again.
  clock_.Advance(absl::Minutes(1));
  EXPECT_THAT(log_.Take(), IsEmpty());
  Refuse("new");
  const auto later = log_.Take();
  ASSERT_THAT(later, SizeIs(1));
  EXPECT_EQ(later[0].principal(), "new");
}

TEST_F(RefusalLogTest, WhatTheCallerWroteIsCutAndClean) {
  Refuse("eve", std::string(5'000, 'x'));
  EXPECT_EQ(log_.Take().at(0).resource().size(), 256);
  Refuse("ann", "\xff");
  EXPECT_EQ(log_.Take().at(0).resource(), "\xef\xbf\xbd");
}

}  // namespace
}  // namespace lasp::server
