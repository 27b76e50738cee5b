// Completion in the shells themselves: commands, flags, values, and names that a coordinator knows.
#include "client/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/client/commands_fixture.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"

namespace lasp::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class CompletionTest : public CommandsFixture {
 protected:
  CompletionTest() {
    server_.PutJob(RunningJob("quickstart", 5));
    server_.PutJob(RunningJob("long-run", 5));
    lasp::v1::Worker worker;
    worker.set_name("workers/host-1");
    server_.PutWorker(worker);
  }

  // Whether the shell is there. Where the tests must be whole, a missing one is an error.
  static bool HasShell(const std::string& shell) {
    const bool there = std::system(absl::StrCat("command -v ", shell, " >/dev/null").c_str()) == 0;
    const char* const ci = std::getenv("CI");
    if (!there && ci != nullptr && std::string(ci) == "true") {
      ADD_FAILURE() << "no " << shell << ": run deploy/install-dependencies tests";
    }
    return there;
  }

  // What `shell` prints that reads `script`, with the real lasp in its PATH.
  std::string RunShell(const std::string& shell, const std::string& script) {
    const std::string binary = LASP_BINARY;
    const std::string file = directory_.Write("script", script);
    const std::string command =
        absl::StrCat("env -i PATH=", binary.substr(0, binary.rfind('/')),
                     ":/usr/bin:/bin TERM=dumb HOME=", directory_.path(),
                     " LASP_SERVER=", address_.empty() ? server_.address() : address_,
                     " timeout 60 ", shell, " ", file, " 2>&1");
    FILE* const pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) {
      ADD_FAILURE() << "cannot start " << shell;
      return "";
    }
    std::string output;
    char buffer[4096];
    size_t count = 0;
    while ((count = fread(buffer, 1, sizeof(buffer), pipe)) > 0) {
      output.append(buffer, count);
    }
    EXPECT_EQ(pclose(pipe), 0) << output;
    return output;
  }

  // What bash offers for the last of `words`, which are as bash splits a line.
  std::string Bash(const std::string& words) {
    return RunShell("bash --norc --noprofile",
                    absl::StrCat("source <(lasp completion bash)\nCOMP_WORDS=(", words,
                                 ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_lasp\n"
                                 "echo \"${COMPREPLY[*]}\"\n"));
  }

  std::string Fish(const std::string& line) {
    return RunShell("fish --no-config", absl::StrCat("lasp completion fish | source\n"
                                                     "complete -C '",
                                                     line, "'\n"));
  }

  // Types `line` and a tab into an interactive zsh; what it shows until `expected` is among it.
  std::string Zsh(const std::string& line, const std::string& expected) {
    directory_.Write("_lasp", *CompletionScript("zsh"));
    return RunShell("zsh -f",
                    absl::StrCat("zmodload zsh/zpty\n"
                                 "zpty inner zsh -f -i\n"
                                 "zpty -w inner 'PS1=; fpath=(",
                                 directory_.path(),
                                 " $fpath); autoload -Uz compinit; compinit -u -D; echo rea''dy'\n"
                                 "zpty -r inner text '*ready*'\n"
                                 "zpty -w -n inner $'",
                                 line,
                                 "\\t'\n"
                                 "zpty -r inner text '*",
                                 expected,
                                 "*' && print -r -- \"$text\"\n"
                                 "zpty -d inner\n"));
  }

  lasp::testing::TempDirectory directory_;
  // Instead of the server's.
  std::string address_;
};

TEST_F(CompletionTest, BashOffersNames) {
  EXPECT_EQ(Bash("lasp describe qu"), "quickstart\n");
  EXPECT_EQ(Bash("lasp logs l"), "long-run\n");
  EXPECT_EQ(Bash("lasp drain \"\"").substr(0, 6), "--undo");
  EXPECT_EQ(Bash("lasp drain h"), "host-1\n");
  EXPECT_EQ(Bash("lasp list --project d"), "default\n");
  EXPECT_EQ(Bash("lasp submit q"), "\n");
}

TEST_F(CompletionTest, BashKnowsValuesBehindAnEqualSign) {
  EXPECT_EQ(Bash("lasp list --output = js"), "json\n");
  EXPECT_EQ(Bash("lasp list --output ="), "table wide json yaml name\n");
  EXPECT_EQ(Bash("lasp plot x --metric thr"), "throughput\n");
}

TEST_F(CompletionTest, TheLineSaysWhomToAsk) {
  const std::string real = server_.address();
  address_ = "127.0.0.1:1";
  const std::string port = real.substr(real.find(':') + 1);
  EXPECT_EQ(Bash(absl::StrCat("lasp --server = 127.0.0.1 : ", port, " describe qu")),
            "quickstart\n");
  EXPECT_EQ(Bash(absl::StrCat("lasp -s ", real, " describe qu")), "quickstart\n");
}

TEST_F(CompletionTest, WithoutACoordinatorThereIsSilence) {
  address_ = "127.0.0.1:1";
  const absl::Time begin = absl::Now();
  EXPECT_EQ(Bash("lasp describe qu"), "\n");
  EXPECT_LT(absl::Now() - begin, absl::Seconds(20));
  const ProcessResult result = RunLasp({"__names", "jobs"}, {{"LASP_SERVER", "127.0.0.1:1"}});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out + result.error, "");
}

TEST_F(CompletionTest, ContextsComeFromTheFile) {
  const Environment home = {{"HOME", directory_.path()}};
  EXPECT_EQ(
      RunLasp({"config", "set-context", "prod", "--server", "lasp.example.org"}, home).exit_code,
      0);
  EXPECT_EQ(Bash("lasp config use-context p"), "prod\n");
  EXPECT_EQ(Bash("lasp list --context p"), "prod\n");
}

TEST_F(CompletionTest, WhatIsNoPlainNameIsLeftOut) {
  lasp::v1::TrainingJob bad = RunningJob("x", 1);
  bad.set_name("projects/default/trainingJobs/$(touch x)");
  server_.PutJob(bad);
  const ProcessResult names = Run({"__names", "jobs"});
  EXPECT_THAT(names.out, AllOf(HasSubstr("quickstart\n"), Not(HasSubstr("touch"))));
}

TEST_F(CompletionTest, FishOffersCommandsFlagsAndNames) {
  if (!HasShell("fish")) {
    GTEST_SKIP() << "no fish: deploy/install-dependencies tests installs it";
  }
  EXPECT_THAT(Fish("lasp su"), AllOf(HasSubstr("submit\tSubmit a"), HasSubstr("suspend\t")));
  EXPECT_THAT(Fish("lasp submit --dr"), HasSubstr("--dry-run"));
  EXPECT_THAT(Fish("lasp list --output j"), HasSubstr("json"));
  EXPECT_THAT(Fish("lasp describe qu"), HasSubstr("quickstart"));
  EXPECT_THAT(Fish("lasp drain h"), HasSubstr("host-1"));
}

TEST_F(CompletionTest, ZshOffersCommandsFlagsAndNames) {
  if (!HasShell("zsh")) {
    GTEST_SKIP() << "no zsh: deploy/install-dependencies tests installs it";
  }
  EXPECT_THAT(Zsh("lasp sub", "mit"), HasSubstr("mit"));
  EXPECT_THAT(Zsh("lasp submit --dry", "run"), HasSubstr("run"));
  EXPECT_THAT(Zsh("lasp describe qui", "ckstart"), HasSubstr("ckstart"));
  EXPECT_THAT(Zsh("lasp drain ho", "st\\-1"), HasSubstr("st-1"));
}

}  // namespace
}  // namespace lasp::client
