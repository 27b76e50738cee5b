#include "server/page_token.h"

#include "absl/strings/escaping.h"
#include "proto/rpc/error_details.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);
const std::vector<std::string> kQuery = {"projects/default", "state=RUNNING", ""};

TEST(PageTokenTest, GivesTheCursorBack) {
  const PageTokenCodec codec("secret");
  for (const std::string& cursor : {std::string("17"), std::string("a\nb\n\n"), std::string()}) {
    const auto decoded = codec.Decode(kQuery, codec.Encode(kQuery, cursor, kNow), kNow);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(*decoded, cursor);
  }
}

TEST(PageTokenTest, IsBoundToItsQuery) {
  const PageTokenCodec codec("secret");
  const std::string token = codec.Encode(kQuery, "17", kNow);
  EXPECT_THAT(codec.Decode({"projects/default", "", "state=RUNNING"}, token, kNow),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("another")));
  // Parts must not run into one another.
  EXPECT_THAT(codec.Decode({"projects/defaultstate=RUNNING", "", ""}, token, kNow),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("another")));
}

TEST(PageTokenTest, RefusesWhatIsForgedOrOfAnotherStore) {
  const PageTokenCodec codec("secret");
  const std::string token = codec.Encode(kQuery, "17", kNow);
  EXPECT_THAT(PageTokenCodec("other").Decode(kQuery, token, kNow),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not made by")));
  std::string bytes;
  ASSERT_TRUE(absl::WebSafeBase64Unescape(token, &bytes));
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string changed = bytes;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    const auto decoded = codec.Decode(kQuery, absl::WebSafeBase64Escape(changed), kNow);
    EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument) << "byte " << i;
    EXPECT_EQ(ErrorReason(decoded.status()), "PAGE_TOKEN_INVALID");
  }
  for (const std::string& junk : {std::string("x"), std::string("%%%"), std::string(5'000, 'A')}) {
    EXPECT_EQ(codec.Decode(kQuery, junk, kNow).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(PageTokenTest, GrowsStale) {
  const PageTokenCodec codec("secret");
  const std::string token = codec.Encode(kQuery, "17", kNow);
  EXPECT_TRUE(codec.Decode(kQuery, token, kNow + kPageTokenLifetime).ok());
  EXPECT_THAT(codec.Decode(kQuery, token, kNow + kPageTokenLifetime + absl::Seconds(2)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("too old")));
}

TEST(PageSizeTest, FollowsTheStandardRules) {
  EXPECT_EQ(ResolvePageSize(0).value(), 50);
  EXPECT_EQ(ResolvePageSize(7).value(), 7);
  EXPECT_EQ(ResolvePageSize(500).value(), 500);
  EXPECT_EQ(ResolvePageSize(501).value(), 500);
  EXPECT_THAT(ResolvePageSize(-1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("page_size")));
}

}  // namespace
}  // namespace lasp::server
