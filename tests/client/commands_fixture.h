// The real program against a coordinator of the test's own.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/client/fake_server.h"
#include "tests/client/lasp_process.h"

namespace lasp::client {

class CommandsFixture : public ::testing::Test {
 protected:
  ProcessResult Run(const std::vector<std::string>& arguments, const std::string& input = "",
                    Environment environment = {}) {
    environment["LASP_SERVER"] = server_.address();
    return RunLasp(arguments, environment, input);
  }

  // A job that a watch brings to its end.
  void EndOnWatch(const lasp::v1::TrainingJob& last) {
    server_.OnWatch([last](FakeServer* server) {
      server->PutJob(RunningJob("job-abc123", 24));
      server->PutJob(last);
    });
  }

  FakeServer server_;
};

}  // namespace lasp::client
