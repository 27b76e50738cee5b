// One coordinator a folder and a port.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "server/data_folder_lock.h"
#include "server/listen_address.h"
#include "server/port_holder.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::lasp::testing::TempDirectory;
using ::testing::HasSubstr;

TEST(DataFolderLockTest, NamesTheHolder) {
  const TempDirectory directory;
  const std::string data = directory.Join("data");
  {
    auto first = DataFolderLock::Acquire(data);
    LASP_ASSERT_OK(first);
    LASP_ASSERT_OK((*first)->Publish("127.0.0.1:7070"));
    const auto second = DataFolderLock::Acquire(data);
    EXPECT_THAT(second, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(data)));
    EXPECT_THAT(second, StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr(absl::StrCat("pid ", getpid(), " at 127.0.0.1:7070"))));
    EXPECT_EQ(ErrorReason(second.status()), "DATA_FOLDER_LOCKED");
  }
  LASP_EXPECT_OK(DataFolderLock::Acquire(data));
}

TEST(DataFolderLockTest, SaysWhyAFolderCannotBeUsed) {
  const TempDirectory directory;
  const std::string file = directory.Write("file", "not a folder");
  EXPECT_THAT(DataFolderLock::Acquire(file),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(file)));
  EXPECT_THAT(DataFolderLock::Acquire(directory.Join("a/b")),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("cannot be created")));
}

TEST(ListenAddressTest, IsHostAndPort) {
  const auto address = ListenAddress::Parse("[::1]:7070");
  LASP_ASSERT_OK(address);
  EXPECT_EQ(address->host, "[::1]");
  EXPECT_EQ(address->port, 7070);
  for (const char* bad : {"", "7070", ":7070", "localhost", "localhost:", "localhost:x",
                          "localhost:70700", "localhost:-1", "::1:7070"}) {
    EXPECT_THAT(ListenAddress::Parse(bad),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("127.0.0.1:7070")))
        << bad;
  }
}

TEST(PortHolderTest, FindsTheProcess) {
  const int socket_fd = socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_GE(socket_fd, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(socket_fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  socklen_t size = sizeof address;
  ASSERT_EQ(getsockname(socket_fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const int port = ntohs(address.sin_port);
  EXPECT_EQ(DescribePortHolder(port), "");  // bound, but nobody listens yet
  ASSERT_EQ(listen(socket_fd, 1), 0);
  EXPECT_THAT(DescribePortHolder(port), HasSubstr(absl::StrCat("pid ", getpid())));
  EXPECT_THAT(PortTaken("api_address", {"127.0.0.1", port}, "x"),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr(absl::StrCat("port ", port, " is held by pid ", getpid()))));
  close(socket_fd);
}

}  // namespace
}  // namespace lasp::server
