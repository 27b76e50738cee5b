#include "client/connection_options.h"

#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/context_file.h"
#include "client/flag_values.h"
#include "proto/rpc/credential_file.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

constexpr char kDefaultServer[] = "127.0.0.1:7070";

// Before the first thread, so reading the environment is safe.
std::string Environment(const char* name) {
  const char* const value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  return value == nullptr ? "" : value;
}

void Default(std::string* place, const std::string& value) {
  if (place->empty()) {
    *place = value;
  }
}

absl::Status FillFromContext(GlobalOptions* options) {
  const std::string path = ContextFile::DefaultPath();
  LASP_ASSIGN_OR_RETURN(const ContextFile file, ContextFile::Load(path));
  Default(&options->context, file.current);
  if (options->context.empty()) {
    return absl::OkStatus();
  }
  LASP_ASSIGN_OR_RETURN(Context context, file.Find(options->context));
  if (!context.server.empty()) {
    LASP_ASSIGN_OR_RETURN(context.server, ReadServer(path, context.server));
  }
  if (!context.project.empty()) {
    LASP_ASSIGN_OR_RETURN(context.project, ReadProject(path, context.project));
  }
  Default(&context.server, kDefaultServer);
  const bool own = options->server.empty() || options->server == context.server;
  Default(&options->server, context.server);
  Default(&options->project, context.project);
  if (!own) {
    return absl::OkStatus();
  }
  Default(&options->tls_ca, context.tls_ca);
  if (options->tls_cert.empty() && options->tls_key.empty()) {
    options->tls_cert = context.tls_cert;
    options->tls_key = context.tls_key;
  }
  if (options->token.empty() && options->token_file.empty()) {
    options->token_file = context.token_file;
    options->token = context.token;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status FillIn(GlobalOptions* options) {
  if (const std::string server = Environment("LASP_SERVER");
      options->server.empty() && !server.empty()) {
    LASP_ASSIGN_OR_RETURN(options->server, ReadServer("LASP_SERVER", server));
  }
  if (const std::string project = Environment("LASP_PROJECT");
      options->project.empty() && !project.empty()) {
    LASP_ASSIGN_OR_RETURN(options->project, ReadProject("LASP_PROJECT", project));
  }
  if (options->token_file.empty()) {
    options->token = std::string(absl::StripAsciiWhitespace(Environment("LASP_TOKEN")));
  }
  Default(&options->context, Environment("LASP_CONTEXT"));
  LASP_RETURN_IF_ERROR(FillFromContext(options));
  Default(&options->server, kDefaultServer);
  Default(&options->project, kDefaultProject);
  return absl::OkStatus();
}

namespace {

absl::Status CheckToken(absl::string_view token) {
  for (const char c : token) {
    if (!absl::ascii_isgraph(static_cast<unsigned char>(c))) {
      return absl::InvalidArgumentError(
          "the token holds a character that no token has: is the file the right one?");
    }
  }
  return absl::OkStatus();
}

// A file that is not there, told not as a job that there is not.
absl::Status AsArgument(const absl::Status& status) {
  return absl::IsNotFound(status) ? absl::InvalidArgumentError(status.message()) : status;
}

absl::StatusOr<ChannelSecurity> ReadFiles(const GlobalOptions& options) {
  if (options.tls_cert.empty() != options.tls_key.empty() ||
      (options.tls_ca.empty() && !options.tls_cert.empty())) {
    return absl::InvalidArgumentError("--tls_cert and --tls_key go together, and with --tls_ca");
  }
  ChannelSecurity security;
  LASP_ASSIGN_OR_RETURN(security.tls, LoadTlsIdentity({.certificate = options.tls_cert,
                                                       .key = options.tls_key,
                                                       .authority = options.tls_ca}));
  security.token = options.token;
  if (security.token.empty() && !options.token_file.empty()) {
    LASP_ASSIGN_OR_RETURN(security.token, ReadTokenFile(options.token_file));
  }
  LASP_RETURN_IF_ERROR(CheckToken(security.token));
  LASP_RETURN_IF_ERROR(security.CheckFor(options.server));
  return security;
}

}  // namespace

absl::StatusOr<std::string> ReadTokenFile(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSecret("token_file", path);
  if (!text.ok()) {
    return AsArgument(text.status());
  }
  std::string token(absl::StripAsciiWhitespace(*text));
  LASP_RETURN_IF_ERROR(CheckToken(token));
  return token;
}

absl::StatusOr<ChannelSecurity> ReadSecurity(const GlobalOptions& options) {
  auto security = ReadFiles(options);
  return security.ok() ? std::move(security) : AsArgument(security.status());
}

}  // namespace lasp::client
