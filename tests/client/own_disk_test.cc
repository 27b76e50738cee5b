// Errors of this machine's disk are not the coordinator's.
#include "client/own_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "client/exit_code.h"

namespace lasp::client {
namespace {

using ::testing::HasSubstr;

TEST(OwnDiskTest, ExitCodesSayWhoseErrorItIs) {
  struct Case {
    int error;
    int exit_code;
  };

  for (const Case& expected : {Case{ENOENT, kExitUsage},
                               {ENOTDIR, kExitUsage},
                               {EACCES, kExitUsage},
                               {EROFS, kExitUsage},
                               {ENAMETOOLONG, kExitUsage},
                               {EEXIST, kExitConflict},
                               {ENOSPC, kExitFailed},
                               {EDQUOT, kExitFailed},
                               {EFBIG, kExitFailed},
                               {EIO, kExitFailed},
                               {ENODEV, kExitUsage},
                               {ETIMEDOUT, kExitFailed},
                               {ESTALE, kExitFailed}}) {
    const absl::Status status = OwnDiskError(absl::ErrnoToStatus(expected.error, "writing /a/b"));
    EXPECT_EQ(ExitCode(status.code()), expected.exit_code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("writing /a/b"));
  }
  EXPECT_TRUE(OwnDiskError(absl::OkStatus()).ok());
}

}  // namespace
}  // namespace lasp::client
