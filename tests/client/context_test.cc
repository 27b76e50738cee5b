// Contexts from the command line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_replace.h"
#include "tests/client/lasp_process.h"
#include "tests/support/temp_directory.h"

namespace lasp::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// What the first use would refuse is refused at once, in the same words, and nothing is kept.
TEST(SetContextTest, ATokenFileOfNoUseIsRefused) {
  const testing::TempDirectory directory;
  const Environment home = {{"HOME", directory.path()}};
  const std::string open = directory.Write("open", "token");
  ASSERT_EQ(chmod(open.c_str(), 0644), 0);
  const std::string wrong = directory.Write("wrong", "-----BEGIN KEY-----\nabc\n");
  ASSERT_EQ(chmod(wrong.c_str(), 0600), 0);
  for (const std::string& file : {open, wrong, directory.Join("missing")}) {
    const ProcessResult used = RunLasp({"list", "-s", "127.0.0.1:1", "--token_file", file}, home);
    const ProcessResult set = RunLasp({"config", "set-context", "a", "--token_file", file}, home);
    EXPECT_EQ(set.exit_code, used.exit_code) << file;
    // "error: COMMAND: …"
    EXPECT_EQ(absl::StrReplaceAll(set.error, {{"config:", "list:"}}), used.error);
    EXPECT_THAT(set.error, Not(HasSubstr("context a is set")));
    EXPECT_THAT(RunLasp({"config", "get-contexts"}, home).out, Not(HasSubstr("a")));
  }
  const std::string good = directory.Write("good", "token\n");
  ASSERT_EQ(chmod(good.c_str(), 0600), 0);
  EXPECT_EQ(RunLasp({"config", "set-context", "a", "--token_file", good}, home).exit_code, 0);
}

TEST(ViewTest, IsInTheFormThatIsAskedFor) {
  const testing::TempDirectory directory;
  const Environment home = {{"HOME", directory.path()}};
  ASSERT_EQ(RunLasp({"config", "set-context", "a", "-s", "host:1"}, home).exit_code, 0);
  const auto document = nlohmann::json::parse(RunLasp({"config", "view", "-o", "json"}, home).out);
  EXPECT_EQ(document["contexts"]["a"]["server"], "host:1");
  for (const std::string form : {"yaml", "table"}) {
    EXPECT_THAT(RunLasp({"config", "view", "-o", form}, home).out,
                HasSubstr("server: \"host:1\"\n"));
  }
}

}  // namespace
}  // namespace lasp::client
