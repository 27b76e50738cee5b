// The files of certificates and tokens: rights, reloading, and what is kept when they go wrong.
#include "server/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/rpc/credential_file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"

namespace lasp::server {
namespace {

using ::testing::HasSubstr;

constexpr char kLine[] =
    "ann viewer a never 7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed\n";

class CredentialsTest : public ::testing::Test {
 protected:
  CredentialsTest() {
    Script("init");
    Script("server", "--host localhost");
    options_.tls.certificate = folder_.Join("c/server/tls.crt");
    options_.tls.key = folder_.Join("c/server/tls.key");
    options_.tls.authority = folder_.Join("c/ca.crt");
    options_.token_file = folder_.Join("tokens");
    options_.reload_interval = absl::Milliseconds(10);
    Write("tokens", kLine);
  }

  void Script(const std::string& command, const std::string& arguments = "") {
    const std::string line = absl::StrCat(LASP_CREDENTIALS, " ", command, " ", folder_.Join("c"),
                                          " ", arguments, " 2>/dev/null");
    ASSERT_EQ(std::system(line.c_str()), 0) << line;  // NOLINT(concurrency-mt-unsafe)
  }

  // Replaces a file as a whole.
  void Write(const std::string& name, const std::string& text, mode_t mode = 0600) {
    folder_.Write("fresh", text);
    chmod(folder_.Join("fresh").c_str(), mode);
    rename(folder_.Join("fresh").c_str(), folder_.Join(name).c_str());
  }

  absl::StatusOr<std::unique_ptr<Credentials>> Load() {
    return Credentials::Load(options_, [this](bool used) { (used ? used_ : refused_)++; });
  }

  template <typename Condition>
  static bool Await(Condition condition) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (!condition() && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(5));
    }
    return condition();
  }

  const ::lasp::testing::TempDirectory folder_;
  CredentialOptions options_;
  std::atomic<int> used_ = 0;
  std::atomic<int> refused_ = 0;
};

TEST_F(CredentialsTest, ReadsTokensAgainAndKeepsThemWhenTheyGoWrong) {
  const auto credentials = Load();
  LASP_ASSERT_OK(credentials);
  EXPECT_NE((*credentials)->tokens()->Find("one"), nullptr);
  const auto before = (*credentials)->tokens();
  Write("tokens", "nonsense\n");
  ASSERT_TRUE(Await([&] { return refused_ == 1; }));
  EXPECT_EQ((*credentials)->tokens(), before);
  Write("tokens", kLine, 0644);
  ASSERT_TRUE(Await([&] { return refused_ == 2; }));
  EXPECT_EQ((*credentials)->tokens(), before);
  unlink(options_.token_file.c_str());
  ASSERT_TRUE(Await([&] { return refused_ == 3; }));
  EXPECT_EQ((*credentials)->tokens(), before);
  Write("tokens", "# nobody\n");
  ASSERT_TRUE(Await([&] { return used_ == 1; }));
  EXPECT_EQ((*credentials)->tokens()->size(), 0u);
  // Rights alone make a difference too.
  Write("tokens", kLine);
  ASSERT_TRUE(Await([&] { return used_ == 2; }));
  chmod(options_.token_file.c_str(), 0640);
  ASSERT_TRUE(Await([&] { return refused_ == 4; }));
}

TEST_F(CredentialsTest, ReadsCertificatesAgainAndKeepsThemWhenTheyGoWrong) {
  const auto credentials = Load();
  LASP_ASSERT_OK(credentials);
  const auto before = (*credentials)->tls();
  EXPECT_GT(before->end, absl::Now() + absl::Hours(24 * 300));
  Write("c/server/tls.crt", "none");
  ASSERT_TRUE(Await([&] { return refused_ == 1; }));
  EXPECT_EQ((*credentials)->tls(), before);
  // The script replaces the key, then the certificate.
  Script("rotate", "server");
  ASSERT_TRUE(Await([&] { return (*credentials)->tls() != before; }));
  EXPECT_NE((*credentials)->tls()->key, before->key);
}

// As many connections at once do, for a while.
class NoDescriptors {
 public:
  NoDescriptors() {
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
    const rlimit none = {.rlim_cur = 0, .rlim_max = before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  }

  ~NoDescriptors() { EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0); }

  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;

 private:
  rlimit before_ = {};
};

TEST_F(CredentialsTest, WhatCannotBeReadForAWhileIsReadAgain) {
  const auto credentials = Load();
  LASP_ASSERT_OK(credentials);
  const auto before = (*credentials)->tls();
  // Ann's token is revoked, and the certificate's rights change, which is a change like any other.
  Write("next", "# nobody\n");
  {
    const NoDescriptors none;
    rename(folder_.Join("next").c_str(), options_.token_file.c_str());
    chmod(options_.tls.certificate.c_str(), 0600);
    ASSERT_TRUE(Await([&] { return refused_ == 2; }));
    absl::SleepFor(5 * options_.reload_interval);
  }
  EXPECT_TRUE(Await([&] { return used_ == 2; }));
  EXPECT_EQ((*credentials)->tokens()->Find("one"), nullptr);
  EXPECT_NE((*credentials)->tls(), before);
  EXPECT_EQ(refused_, 2) << "told once each, however often they are tried";
}

TEST_F(CredentialsTest, AnEmptyTokenFileCountsAtTheSecondLook) {
  options_.reload_interval = absl::Milliseconds(200);
  const auto credentials = Load();
  LASP_ASSERT_OK(credentials);
  // So that the next look is far off.
  Write("tokens", absl::StrCat("# the same\n", kLine));
  ASSERT_TRUE(Await([&] { return used_ == 1; }));
  absl::SleepFor(options_.reload_interval / 2);
  const absl::Time emptied = absl::Now();
  ASSERT_EQ(truncate(options_.token_file.c_str(), 0), 0);
  ASSERT_TRUE(Await([&] { return (*credentials)->tokens()->size() == 0; }));
  EXPECT_GE(absl::Now() - emptied, options_.reload_interval);
  EXPECT_TRUE(Await([&] { return used_ == 2; }));
}

// The kernel's own files know errors at will.
TEST(CredentialFileTest, AnErrorWhileReadingIsNoShortFile) {
  const std::string path = "/sys/class/net/lo/speed";
  if (StampOf(path).size == 0) {
    GTEST_SKIP() << "there is no " << path;
  }
  EXPECT_THAT(std::string(ReadCredential("tls_cert", path).status().message()),
              HasSubstr("cannot be read: Invalid argument"));
}

TEST_F(CredentialsTest, RefusesToStartWithWhatIsOfNoUse) {
  const std::string other = folder_.Join("other.key");
  ASSERT_EQ(std::system(absl::StrCat("openssl genpkey -algorithm EC -pkeyopt "
                                     "ec_paramgen_curve:P-256 -out ",
                                     other, " 2>/dev/null")
                            .c_str()),  // NOLINT(concurrency-mt-unsafe)
            0);
  chmod(other.c_str(), 0600);
  Write("text", "text");
  Write("open", kLine, 0604);
  mkdir(folder_.Join("folder").c_str(), 0700);
  mkfifo(folder_.Join("pipe").c_str(), 0600);
  const auto refused = [&](std::string CredentialOptions::* field, const std::string& name,
                           const std::string& told) {
    CredentialOptions changed = options_;
    changed.*field = folder_.Join(name);
    const auto loaded = Credentials::Load(changed, [](bool) {});
    EXPECT_THAT(std::string(loaded.status().message()), HasSubstr(told)) << name;
  };
  refused(&CredentialOptions::token_file, "none", "there is no file");
  refused(&CredentialOptions::token_file, "open", "0604");
  refused(&CredentialOptions::token_file, "folder", "is no file");
  refused(&CredentialOptions::token_file, "pipe", "is no file");
  refused(&CredentialOptions::token_file, "text", "line 1");
  const auto refused_tls = [&](std::string TlsFiles::* field, const std::string& path,
                               const std::string& told) {
    CredentialOptions changed = options_;
    changed.tls.*field = path;
    const auto loaded = Credentials::Load(changed, [](bool) {});
    EXPECT_THAT(std::string(loaded.status().message()), HasSubstr(told)) << path;
  };
  refused_tls(&TlsFiles::certificate, folder_.Join("text"), "--tls_cert: ");
  refused_tls(&TlsFiles::key, folder_.Join("text"), "no private key");
  refused_tls(&TlsFiles::key, other, "is not the key of the certificate");
  refused_tls(&TlsFiles::key, options_.tls.certificate, "0644");
  refused_tls(&TlsFiles::authority, folder_.Join("text"), "--tls_client_ca: ");
  refused_tls(&TlsFiles::authority, folder_.Join("none"), "--tls_client_ca: there is no file");
}

}  // namespace
}  // namespace lasp::server
