#include "proto/rpc/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "tests/support/temp_directory.h"

namespace lasp {
namespace {

using nlohmann::json;

// Collects what goes to stderr in the meantime, line by line.
class StderrCapture {
 public:
  StderrCapture() : path_(temp_.Join("stderr")), saved_(dup(STDERR_FILENO)) {
    const int fd = open(path_.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
    if (fd < 0 || saved_ < 0) {
      std::abort();
    }
    dup2(fd, STDERR_FILENO);
    close(fd);
    InitializeLog({.component = "lasp-test", .fields = {{"rank", 3}}});
  }

  std::vector<std::string> Finish() {
    if (saved_ >= 0) {
      dup2(saved_, STDERR_FILENO);
      close(saved_);
    }
    std::vector<std::string> lines;
    std::ifstream file(path_);
    for (std::string line; std::getline(file, line);) {
      lines.push_back(line);
    }
    return lines;
  }

 private:
  testing::TempDirectory temp_;
  std::string path_;
  int saved_;
};

TEST(LogTest, ALineIsOneJsonObjectWhateverIsLogged) {
  const std::string hostile = "a\"b\\c\n\r\t\x01\x1b[31m\x7f{\"level\":\"error\"}\xc3\xa4";
  StderrCapture capture;
  LASP_LOG(kInfo, hostile, {{hostile, hostile}, {"step", 7}});
  const std::vector<std::string> lines = capture.Finish();
  ASSERT_EQ(lines.size(), 1u);
  const json line = json::parse(lines[0]);
  EXPECT_EQ(line["msg"], hostile);
  EXPECT_EQ(line[hostile], hostile);
  EXPECT_EQ(line["step"], "7");
  EXPECT_EQ(line["rank"], "3");
  EXPECT_EQ(line["component"], "lasp-test");
  EXPECT_EQ(line["level"], "info");
  EXPECT_THAT(line["source"].get<std::string>(), ::testing::StartsWith("log_test.cc:"));
}

TEST(LogTest, BytesThatAreNoUtf8StillMakeReadableJson) {
  StderrCapture capture;
  LASP_LOG(kWarning, "odd bytes \xff\xfe \xc3(");
  const std::vector<std::string> lines = capture.Finish();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_TRUE(json::accept(lines[0])) << lines[0];
}

TEST(LogTest, LevelsBelowTheThresholdAreLeftOut) {
  StderrCapture capture;
  LASP_LOG(kDebug, "detail");
  LASP_LOG(kError, "trouble");
  const std::vector<std::string> lines = capture.Finish();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(json::parse(lines[0])["level"], "error");
}

TEST(LogTest, LinesOfThreadsAreNotMixed) {
  StderrCapture capture;
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 100; ++i) {
        LASP_LOG(kInfo, std::string(200, static_cast<char>('a' + t)), {{"i", i}});
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const std::vector<std::string> lines = capture.Finish();
  EXPECT_EQ(lines.size(), 400u);
  for (const std::string& line : lines) {
    const std::string message = json::parse(line)["msg"];
    EXPECT_EQ(message, std::string(200, message[0]));
  }
}

}  // namespace
}  // namespace lasp
