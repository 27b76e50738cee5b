#include "worker/parallel/network_interface.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include "tests/support/status_matchers.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

TEST(NetworkInterfaceTest, EveryLoopbackAddressIsTheLoopbackInterfaces) {
  for (const char* const host : {"127.0.0.1", "127.3.2.1", "localhost"}) {
    const auto name = InterfaceOf(host);
    LASP_ASSERT_OK(name);
    EXPECT_EQ(*name, "lo") << host;
  }
}

TEST(NetworkInterfaceTest, FindsEveryAddressOfThisHost) {
  ifaddrs* interfaces = nullptr;
  ASSERT_EQ(::getifaddrs(&interfaces), 0);
  int found = 0;
  for (const ifaddrs* interface = interfaces; interface != nullptr;
       interface = interface->ifa_next) {
    if (interface->ifa_addr == nullptr || interface->ifa_addr->sa_family != AF_INET) {
      continue;
    }
    char text[INET_ADDRSTRLEN] = "";
    ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(interface->ifa_addr)->sin_addr, text,
                sizeof text);
    const auto name = InterfaceOf(text);
    LASP_EXPECT_OK(name);
    EXPECT_EQ(name.value_or(""), interface->ifa_name) << text;
    ++found;
  }
  ::freeifaddrs(interfaces);
  EXPECT_GT(found, 0);
}

TEST(NetworkInterfaceTest, NamesAnAddressThatIsNotThisHosts) {
  EXPECT_THAT(InterfaceOf("192.0.2.7"),  // RFC 5737: nobody's
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("'192.0.2.7'")));
  EXPECT_THAT(InterfaceOf("no such host"),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("'no such host'")));
}

}  // namespace
}  // namespace lasp::worker
