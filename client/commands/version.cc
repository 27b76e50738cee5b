#include "proto/rpc/version.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "client/commands/commands.h"
#include "client/document.h"
#include "client/exit_code.h"
#include "client/output.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

void PrintVersions(const lasp::v1::ServerInfo* server, Session* session) {
  const OutputFormat format = session->options().output;
  if (format == OutputFormat::kJson || format == OutputFormat::kYaml) {
    Document document = Document::object();
    document["client"] = {{"version", lasp::Version()}, {"revision", lasp::Revision()}};
    if (server != nullptr) {
      document["server"] = ToDocument(*server);
    }
    session->console().Print(format == OutputFormat::kYaml ? YamlText(document)
                                                           : JsonText(document) + "\n");
    return;
  }
  std::string text = absl::StrCat("client ", lasp::Version(), " (", lasp::Revision(), ")\n");
  if (server != nullptr) {
    absl::StrAppend(&text, "server ", server->version(), " (", server->revision(), ") at ",
                    session->options().server, "\n");
  }
  session->console().Print(text);
}

}  // namespace

absl::StatusOr<int> Version(bool client_only, Session* session) {
  if (client_only) {
    PrintVersions(nullptr, session);
    return kExitOk;
  }
  const auto connection = session->Connect();
  absl::StatusOr<lasp::v1::ServerInfo> info = absl::UnknownError("");
  if (!connection.ok()) {
    info = connection.status();
  } else {
    info = (*connection)
               ->Call(&(*connection)->server(), &lasp::v1::ServerService::Stub::GetServerInfo,
                      lasp::v1::GetServerInfoRequest(), kReadDeadline);
  }
  // The own version is worth knowing just when the coordinator does not answer.
  PrintVersions(info.ok() ? &*info : nullptr, session);
  LASP_RETURN_IF_ERROR(info.status());
  if (info->version() != lasp::Version()) {
    session->console().Note("client and server are of different versions");
  }
  return kExitOk;
}

}  // namespace lasp::client
