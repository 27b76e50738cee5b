// lasp: the command line of the training service.
#include <string>
#include <vector>

#include "client/interrupt.h"
#include "client/run_command.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/log.h"

int main(int argc, char** argv) {
  lasp::client::TakeInterrupts();
  // gRPC's own messages are of no use to a person at a prompt.
  lasp::LogOptions log;
  log.level = lasp::LogLevel::kError;
  log.component = "lasp";
  lasp::InitializeLog(log);
  lasp::PrepareGrpc();
  return lasp::client::RunCommandLine(std::vector<std::string>(argv + 1, argv + argc));
}
