#include "proto/checkpoint/checkpoint_folder.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "worker/checkpoint/checkpoint_folder.h"

namespace lasp::worker {

namespace {

using ::lasp::testing::StatusIs;
using ::lasp::testing::TempDirectory;
using ::testing::HasSubstr;

TEST(CheckpointFolderTest, TakesPlainPathsOnly) {
  for (const char* const good : {"a", "default/0123-uid", "a/b/c", "..a/b"}) {
    LASP_EXPECT_OK(CheckFolderName(good)) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string("/a"), std::string("a/"), std::string("a//b"), std::string(".."),
        std::string("a/../b"), std::string("./a"), std::string("a\0b", 3)}) {
    EXPECT_THAT(CheckFolderName(bad), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")))
        << bad;
  }
}

TEST(CheckpointFolderTest, OpensWhatLiesBeneathTheRootAlone) {
  TempDirectory root;
  TempDirectory elsewhere;
  std::filesystem::create_directories(root.Join("p/uid"));
  std::filesystem::create_symlink(elsewhere.path(), root.Join("link"));
  root.Write("file", "");
  LASP_EXPECT_OK(OpenFolderBeneath(root.path(), "p/uid"));
  EXPECT_THAT(OpenFolderBeneath(root.path(), "p/none"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("p/none")));
  EXPECT_FALSE(OpenFolderBeneath(root.path(), "link").ok());
  EXPECT_FALSE(OpenFolderBeneath(root.path(), "file").ok());
  EXPECT_THAT(OpenFolderBeneath(root.Join("none"), "p"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("--checkpoint_root")));
}

TEST(CheckpointFolderTest, MakesAFolderOnceForItsOwnerAlone) {
  TempDirectory root;
  std::filesystem::create_directory(root.Join("p"));
  const auto parent = OpenFolderBeneath(root.path(), "p");
  LASP_ASSERT_OK(parent);
  LASP_EXPECT_OK(MakeFolder(*parent, "step-1.gen-1", "it"));
  LASP_EXPECT_OK(MakeFolder(*parent, "step-1.gen-1", "it"));
  struct stat status = {};
  ASSERT_EQ(stat(root.Join("p/step-1.gen-1").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
  // What somebody has put there is not followed.
  std::filesystem::create_symlink(root.path(), root.Join("p/step-2.gen-1"));
  EXPECT_FALSE(MakeFolder(*parent, "step-2.gen-1", "it").ok());
}

}  // namespace
}  // namespace lasp::worker
