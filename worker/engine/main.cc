// lasp-rank and lasp-rank-cuda: one rank of one training job, started by lasp-worker with its
// channel as descriptor 3.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "absl/debugging/symbolize.h"
#include "proto/rpc/log.h"
#include "proto/rpc/rank_exit_code.h"
#include "proto/rpc/version.h"
#include "worker/engine/channel_listener.h"
#include "worker/engine/drain_request.h"
#include "worker/engine/process_privacy.h"
#include "worker/engine/rank.h"
#include "worker/engine/rank_channel.h"
#include "worker/engine/rank_runtime.h"
#include "worker/engine/thread_stacks.h"

namespace {

lasp::worker::DrainRequest g_drain;

void RequestDrain(int /*signal*/) { g_drain.Request(); }

void SetSignals() {
  struct sigaction drain = {};
  drain.sa_handler = RequestDrain;
  drain.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &drain, nullptr);
  struct sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, nullptr);
  // Ctrl-C on the agent's terminal is the agent's to handle.
  sigaction(SIGINT, &ignore, nullptr);
  // The backstop: the channel's end is noticed first.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
}

bool IsSocket(int descriptor) {
  int type = 0;
  socklen_t size = sizeof type;
  return getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  const char* const program = lasp::worker::RankProgramName();
  if (argc > 1 && std::strcmp(argv[1], "--version") == 0) {
    std::printf("%s %s (%s)\n", program, lasp::Version(), lasp::Revision());
    return 0;
  }
  if (!IsSocket(lasp::worker::kRankChannelDescriptor)) {
    std::fprintf(stderr, "%s is started by lasp-worker, with a channel to it as descriptor %d\n",
                 program, lasp::worker::kRankChannelDescriptor);
    return lasp::kRankWrongConfiguration;
  }
  lasp::worker::KeepProcessPrivate();
  SetSignals();
  absl::InitializeSymbolizer(argv[0]);
  lasp::worker::PrepareThreadStacks();
  lasp::InitializeLog({.level = lasp::LogLevel::kInfo, .component = program, .fields = {}});
  lasp::worker::RankChannel channel(lasp::worker::kRankChannelDescriptor);
  // _exit, not exit: other threads may be inside a collective operation or a matrix product.
  lasp::worker::ChannelListener listener(&channel, &g_drain, [] { _exit(lasp::kRankRetry); });
  return lasp::worker::RunRank(&channel, &listener, &g_drain);
}
