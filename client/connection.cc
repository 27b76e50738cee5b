#include "client/connection.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "client/error_report.h"

namespace lasp::client {
namespace {

// Long enough for a coordinator that is just being restarted, short enough for a person.
constexpr absl::Duration kReachTimeout = absl::Seconds(2);
constexpr absl::Duration kReasonTimeout = absl::Seconds(1);

// gRPC's message ends in the system's reason: "…: Failed to connect to remote host: Connection
// refused".
std::string ShortReason(absl::string_view message) {
  if (absl::StrContains(message, "DNS resolution failed")) {
    return "the host name is not known";
  }
  const size_t colon = message.rfind(": ");
  if (colon == absl::string_view::npos || !absl::StrContains(message, "ailed to connect")) {
    return "no answer";
  }
  return absl::AsciiStrToLower(message.substr(colon + 2));
}

}  // namespace

Connection::Connection(std::shared_ptr<grpc::Channel> channel,
                       std::optional<absl::Duration> timeout)
    : channel_(std::move(channel)),
      timeout_(timeout),
      jobs_(lasp::v1::TrainingJobService::NewStub(channel_)),
      metrics_(lasp::v1::MetricsService::NewStub(channel_)),
      logs_(lasp::v1::LogService::NewStub(channel_)),
      workers_(lasp::v1::WorkerAdminService::NewStub(channel_)),
      events_(lasp::v1::EventService::NewStub(channel_)),
      server_(lasp::v1::ServerService::NewStub(channel_)),
      audit_(lasp::v1::AuditService::NewStub(channel_)),
      checkpoints_(lasp::v1::CheckpointService::NewStub(channel_)),
      backups_(lasp::v1::BackupService::NewStub(channel_)) {}

absl::StatusOr<std::unique_ptr<Connection>> Connection::Open(
    const std::string& address, const ChannelSecurity& security,
    std::optional<absl::Duration> timeout) {
  std::unique_ptr<Connection> connection(new Connection(NewChannel(address, security), timeout));
  if (connection->WaitUntilReachable(std::min(kReachTimeout, timeout.value_or(kReachTimeout)))) {
    return connection;
  }
  // The channel does not say why it is not connected; a call does.
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kReasonTimeout));
  lasp::v1::ServerInfo info;
  const grpc::Status status = connection->server_->GetServerInfo(&context, {}, &info);
  if (status.ok()) {
    return connection;
  }
  return Unreachable(address, ShortReason(status.error_message()));
}

bool Connection::WaitUntilReachable(absl::Duration timeout) {
  return channel_->WaitForConnected(absl::ToChronoTime(absl::Now() + timeout));
}

}  // namespace lasp::client
