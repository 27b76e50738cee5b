#include "proto/spec/path_lookup.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "proto/rpc/clock.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"

namespace lasp {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDirectory;

constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kDenied = absl::StatusCode::kPermissionDenied;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// For the rest of this process the kernel knows no openat2.
void RefuseOpenat2() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {.len = std::size(code), .filter = code};
  ASSERT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

class PathLookupTest : public ::testing::Test {
 protected:
  PathLookupTest() {
    fs::create_directories(temp_.Join("first/sub"));
    fs::create_directories(temp_.Join("second"));
    fs::create_directories(temp_.Join("outside"));
    temp_.Write("first/a.txt", "first");
    temp_.Write("first/sub/deep.txt", "deep");
    temp_.Write("second/a.txt", "second");
    temp_.Write("second/b.txt", "only here");
    temp_.Write("outside/secret.txt", "secret");
  }

  // What the opened file holds, or the error.
  absl::StatusOr<std::string> Content(const std::string& path) {
    auto file = OpenBeneathRoots(path, roots_);
    if (!file.ok()) {
      return file.status();
    }
    char buffer[64] = {};
    const ssize_t count = read(file->fd.get(), buffer, sizeof(buffer));
    return std::string(buffer, static_cast<size_t>(count));
  }

  TempDirectory temp_;
  std::vector<std::string> roots_ = {temp_.Join("first"), temp_.Join("second")};
};

TEST_F(PathLookupTest, RelativePathsTakeTheFirstRootThatHasThem) {
  EXPECT_EQ(*Content("a.txt"), "first");
  EXPECT_EQ(*Content("b.txt"), "only here");
  EXPECT_EQ(*Content("sub/deep.txt"), "deep");
  EXPECT_EQ(*Content("./sub//deep.txt"), "deep");
}

TEST_F(PathLookupTest, AbsolutePathsMustLieBeneathARoot) {
  EXPECT_EQ(*Content(temp_.Join("second/a.txt")), "second");
  EXPECT_EQ(*Content(temp_.Join("first//sub/deep.txt")), "deep");
  EXPECT_THAT(Content(temp_.Join("outside/secret.txt")), StatusIs(kDenied, HasSubstr("outside")));
  EXPECT_THAT(Content("/etc/passwd"), StatusIs(kDenied, HasSubstr(roots_[1])));
  // A root is a folder, not a prefix of letters.
  fs::create_directories(temp_.Join("first-not"));
  temp_.Write("first-not/x.txt", "x");
  EXPECT_THAT(Content(temp_.Join("first-not/x.txt")), StatusIs(kDenied, HasSubstr("x.txt")));
}

TEST_F(PathLookupTest, TheRootOfAllAllowsAll) {
  roots_ = {"/"};
  EXPECT_EQ(*Content(temp_.Join("outside/secret.txt")), "secret");
}

TEST_F(PathLookupTest, MissingFilesNameTheRoots) {
  EXPECT_THAT(Content("none.txt"),
              StatusIs(kNotFound, ::testing::AllOf(HasSubstr("none.txt"), HasSubstr(roots_[0]),
                                                   HasSubstr(roots_[1]))));
  EXPECT_THAT(Content("a.txt/more"), StatusIs(kNotFound, HasSubstr("a.txt/more")));
  EXPECT_THAT(Content(temp_.Join("first/none.txt")), StatusIs(kNotFound, HasSubstr("none.txt")));
}

TEST_F(PathLookupTest, NoRootsAllowNothing) {
  roots_.clear();
  EXPECT_THAT(Content("a.txt"), StatusIs(kDenied, HasSubstr("--path_roots")));
  EXPECT_THAT(Content("/etc/passwd"), StatusIs(kDenied, HasSubstr("--path_roots")));
}

TEST_F(PathLookupTest, NothingEscapesThroughParents) {
  EXPECT_THAT(Content("../outside/secret.txt"), StatusIs(kDenied, HasSubstr("..")));
  EXPECT_THAT(Content("sub/../../outside/secret.txt"), StatusIs(kDenied, HasSubstr("..")));
  EXPECT_THAT(Content(temp_.Join("first/../outside/secret.txt")),
              StatusIs(kDenied, HasSubstr("..")));
}

TEST_F(PathLookupTest, NothingEscapesThroughSymbolicLinks) {
  fs::create_symlink("../outside/secret.txt", temp_.Join("first/relative"));
  fs::create_symlink(temp_.Join("outside/secret.txt"), temp_.Join("first/absolute"));
  fs::create_directory_symlink("../outside", temp_.Join("first/folder"));
  fs::create_symlink("loop", temp_.Join("first/loop"));
  EXPECT_THAT(Content("relative"), StatusIs(kDenied, HasSubstr("symbolic links")));
  EXPECT_THAT(Content("absolute"), StatusIs(kDenied, HasSubstr("symbolic links")));
  EXPECT_THAT(Content("folder/secret.txt"), StatusIs(kDenied, HasSubstr("symbolic links")));
  EXPECT_THAT(Content("loop"), StatusIs(kDenied, HasSubstr("symbolic links")));
}

TEST_F(PathLookupTest, LinksThatStayBeneathTheirRootAreFollowed) {
  fs::create_symlink("sub/deep.txt", temp_.Join("first/inside"));
  EXPECT_EQ(*Content("inside"), "deep");
}

TEST_F(PathLookupTest, ARootMayItselfBeALink) {
  fs::create_directory_symlink("first", temp_.Join("linked"));
  roots_ = {temp_.Join("linked")};
  EXPECT_EQ(*Content("a.txt"), "first");
}

TEST_F(PathLookupTest, OnlyRegularFilesAreOpened) {
  ASSERT_EQ(mkfifo(temp_.Join("first/fifo").c_str(), 0600), 0);
  EXPECT_THAT(Content("fifo"), StatusIs(kInvalid, HasSubstr("not a regular file")));
  EXPECT_THAT(Content("sub"), StatusIs(kInvalid, HasSubstr("is a folder")));
  EXPECT_THAT(Content("sub/"), StatusIs(kInvalid, HasSubstr("is a folder")));
  EXPECT_THAT(Content(""), StatusIs(kInvalid, HasSubstr("empty")));
  EXPECT_THAT(Content(std::string("a\0b", 3)), StatusIs(kInvalid, HasSubstr("NUL")));
  roots_ = {"/dev"};
  EXPECT_THAT(Content("null"), StatusIs(kInvalid, HasSubstr("not a regular file")));
}

// The links of /proc to a process's root, folders and open files lead anywhere.
TEST_F(PathLookupTest, LinksOfProcAreNotFollowed) {
  fs::create_symlink("/proc/self/root/etc/passwd", temp_.Join("first/root"));
  fs::create_symlink("/proc/self/environ", temp_.Join("first/environ"));
  EXPECT_THAT(Content("root"), StatusIs(kDenied, HasSubstr("symbolic links")));
  EXPECT_THAT(Content("environ"), StatusIs(kDenied, HasSubstr("symbolic links")));
  // Not even where the operator allows all of it.
  const UniqueFd secret(open(temp_.Join("outside/secret.txt").c_str(), O_RDONLY | O_CLOEXEC));
  const std::string link = "self/fd/" + std::to_string(secret.get());
  for (const std::string root : {"/", "/proc"}) {
    roots_ = {root};
    const std::string in_root = root == "/" ? "proc/" : "";
    EXPECT_THAT(Content(in_root + link), StatusIs(kDenied, HasSubstr("symbolic links")));
    EXPECT_THAT(Content(in_root + "self/root" + temp_.Join("outside/secret.txt")),
                StatusIs(kDenied, HasSubstr("symbolic links")));
    EXPECT_THAT(Content(in_root + "self/cwd/any"), StatusIs(kDenied, HasSubstr("symbolic links")));
  }
}

// Somebody who may write in a root swaps a file, and a folder on its path, for links to the outside
// and back while they are opened.
TEST_F(PathLookupTest, NothingEscapesWhileLinksAreSwapped) {
  fs::create_symlink("a.txt", temp_.Join("first/good"));
  fs::create_symlink("../outside/secret.txt", temp_.Join("first/bad"));
  fs::create_directories(temp_.Join("first/folder"));
  temp_.Write("first/folder/secret.txt", "first");
  fs::create_directory_symlink("../outside", temp_.Join("first/way_out"));
  const auto swap = [](const std::string& a, const std::string& b) {
    return renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
  };
  std::atomic<bool> ended = false;
  std::atomic<int64_t> swaps = 0;
  std::thread attacker([&] {
    while (!ended) {
      swaps += swap(temp_.Join("first/good"), temp_.Join("first/bad")) &&
                       swap(temp_.Join("first/folder"), temp_.Join("first/way_out"))
                   ? 1
                   : 0;
    }
  });
  int opened = 0;
  int refused = 0;
  for (int i = 0; i < 200'000 && (i < 4'000 || opened == 0 || refused == 0); ++i) {
    const auto content = Content(i % 2 == 0 ? "good" : "folder/secret.txt");
    ASSERT_NE(content.value_or(""), "secret");
    opened += content.ok() && *content == "first" ? 1 : 0;
    refused += content.ok() ? 0 : 1;
  }
  ended = true;
  attacker.join();
  // Both sides of the swap were met.
  EXPECT_GT(swaps, 0);
  EXPECT_GT(opened, 0);
  EXPECT_GT(refused, 0);
}

TEST_F(PathLookupTest, NobodyIsWaitedFor) {
  ASSERT_EQ(mkfifo(temp_.Join("first/fifo").c_str(), 0600), 0);
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  temp_.Join("first/socket").copy(address.sun_path, sizeof(address.sun_path) - 1);
  const UniqueFd socket_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(bind(socket_fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  // Opening a file for which somebody holds a lease waits for them, if it is allowed to.
  const UniqueFd leased(open(temp_.Join("first/a.txt").c_str(), O_WRONLY | O_CLOEXEC));
  signal(SIGIO, SIG_IGN);
  const bool has_lease = fcntl(leased.get(), F_SETLEASE, F_WRLCK) == 0;
  const absl::Duration begin = SystemClock().Monotonic();
  EXPECT_THAT(Content("fifo"), StatusIs(kInvalid, HasSubstr("not a regular file")));
  EXPECT_THAT(Content("socket"), StatusIs(kInvalid, HasSubstr("not a regular file")));
  if (has_lease) {
    EXPECT_THAT(Content("a.txt"), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("a.txt")));
  }
  EXPECT_LT(SystemClock().Monotonic() - begin, absl::Seconds(2));
}

TEST_F(PathLookupTest, UnreadableFilesSayHowToMendIt) {
  fs::permissions(temp_.Join("first/a.txt"), fs::perms::none);
  fs::permissions(temp_.path(), fs::perms::owner_all | fs::perms::others_exec);
  const bool root = geteuid() == 0;
  // Root reads everything, so for the moment be nobody.
  if (root) {
    ASSERT_EQ(seteuid(65'534), 0);
  }
  const auto content = Content("a.txt");
  if (root) {
    ASSERT_EQ(seteuid(0), 0);
  }
  EXPECT_THAT(content, StatusIs(kDenied, HasSubstr("read permission")));
}

// Kernels before 5.6 and some sandboxes have no openat2.
TEST_F(PathLookupTest, WithoutOpenat2LinksAreNotFollowedAtAll) {
  fs::create_symlink("sub/deep.txt", temp_.Join("first/inside"));
  fs::create_directory_symlink("../outside", temp_.Join("first/folder"));
  const auto check = [this] {
    RefuseOpenat2();
    const bool right = *Content("sub//deep.txt") == "deep" && *Content("b.txt") == "only here" &&
                       absl::IsPermissionDenied(Content("inside").status()) &&
                       !Content("folder/secret.txt").ok() &&
                       absl::IsNotFound(Content("none/none.txt").status()) &&
                       absl::IsInvalidArgument(Content("sub").status());
    _exit(right ? 0 : 1);
  };
  EXPECT_EXIT(check(), ::testing::ExitedWithCode(0), "");
}

TEST_F(PathLookupTest, LongNamesAreRefusedByName) {
  EXPECT_THAT(Content(std::string(300, 'x')), StatusIs(kInvalid, HasSubstr("too long")));
}

TEST_F(PathLookupTest, NoDescriptorIsLeftOpen) {
  const auto open_count = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto before = open_count();
  for (int i = 0; i < 50; ++i) {
    (void)Content("a.txt");
    (void)Content("none.txt");
    (void)Content("sub");
    (void)Content("/etc/passwd");
  }
  EXPECT_EQ(open_count(), before);
}

TEST_F(PathLookupTest, TheFlagIsAListOfFolders) {
  const auto roots = ParsePathRoots(temp_.Join("first") + "/, " + temp_.Join("second"));
  LASP_ASSERT_OK(roots);
  ASSERT_EQ(roots->size(), 2u);
  roots_ = *roots;
  EXPECT_EQ(*Content("b.txt"), "only here");
  EXPECT_EQ(*Content(temp_.Join("first/a.txt")), "first");
  EXPECT_TRUE(ParsePathRoots("")->empty());
  EXPECT_EQ(ParsePathRoots(".")->size(), 1u);
  EXPECT_EQ((*ParsePathRoots("."))[0][0], '/');
  EXPECT_THAT(ParsePathRoots(temp_.Join("none")), StatusIs(kInvalid, HasSubstr("--path_roots")));
  EXPECT_THAT(ParsePathRoots(temp_.Join("first/a.txt")),
              StatusIs(kInvalid, HasSubstr("not a folder")));
}

}  // namespace
}  // namespace lasp
