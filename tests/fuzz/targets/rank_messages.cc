// What a rank sends its agent and an agent its rank: frames over a socket. And what it prints.
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/str_split.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "server/log_line.h"
#include "server/valid_utf8.h"
#include "tests/fuzz/fuzz_target.h"
#include "worker/agent/log_lines.h"
#include "worker/agent/rank_link.h"
#include "worker/engine/rank_channel.h"

namespace lasp {
namespace {

// The end of a socket on which the bytes, and then its end, are to be read.
int Arriving(absl::string_view bytes, int flags) {
  int ends[2];
  lasp::fuzz::Require(socketpair(AF_UNIX, SOCK_STREAM | flags, 0, ends) == 0, "a socket");
  const lasp::UniqueFd writer(ends[1]);
  const ssize_t sent = send(writer.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  lasp::fuzz::Require(sent >= 0 || bytes.empty(), "the bytes fit into a socket");
  return ends[0];
}

void CheckLines(absl::string_view bytes) {
  worker::LogLines lines;
  std::string log;
  const absl::Time now = absl::FromUnixSeconds(1'700'000'000);
  // In two pieces, as a pipe may give them.
  lines.Add(bytes.substr(0, bytes.size() / 2), now, &log);
  lines.Add(bytes.substr(bytes.size() / 2), now, &log);
  lines.Finish(now, &log);
  fuzz::Require(log.empty() || log.back() == '\n', "a log is whole lines");
  for (const absl::string_view line : absl::StrSplit(log, '\n', absl::SkipEmpty())) {
    const server::LogLineParts parts = server::SplitLogLine(line);
    fuzz::Require(parts.time == now, "a line begins with its time");
    fuzz::Require(server::ValidUtf8(parts.text) == parts.text, "a line is UTF-8");
  }
  const std::string valid = server::ValidUtf8(bytes);
  fuzz::Require(server::ValidUtf8(valid) == valid, "made valid once");
  (void)server::SplitLogLine(bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 64 << 10) {
    return 0;
  }
  const absl::string_view bytes = fuzz::ToText(data, size);
  worker::RankLink link(UniqueFd(Arriving(bytes, SOCK_NONBLOCK)));
  auto received = link.Receive();
  while (received.ok() && !received->empty() && !link.closed()) {
    received = link.Receive();
  }
  worker::RankChannel channel(Arriving(bytes, 0));
  internal::v1::ToRank message;
  for (auto more = channel.Read(&message); more.ok() && *more; more = channel.Read(&message)) {
  }
  CheckLines(bytes);
  return 0;
}

}  // namespace lasp
