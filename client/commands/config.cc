#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/commands/commands.h"
#include "client/connection_options.h"
#include "client/context_file.h"
#include "client/document.h"
#include "client/exit_code.h"
#include "client/output.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

// Paths are kept whole: the next command may run in another folder.
std::string Absolute(const std::string& path) {
  std::error_code failed;
  const std::filesystem::path whole = std::filesystem::absolute(path, failed);
  return path.empty() || failed ? path : whole.lexically_normal().string();
}

// The whole file, without its secrets; in YAML unless JSON is asked for.
void PrintFile(const ContextFile& file, Session* session) {
  const Document document = file.ToDocument(/*hide=*/true);
  session->console().Print(session->options().output == OutputFormat::kJson
                               ? JsonText(document) + "\n"
                               : YamlText(document));
}

void PrintContexts(const ContextFile& file, Session* session) {
  const OutputFormat format = session->options().output;
  if (format == OutputFormat::kJson || format == OutputFormat::kYaml) {
    PrintFile(file, session);
    return;
  }
  std::string text;
  for (const auto& [name, context] : file.contexts) {
    absl::StrAppendFormat(&text, "%s %-20s %s\n", name == file.current ? "*" : " ", name,
                          context.server);
  }
  session->console().Print(text);
}

// What the flags say replaces what is there.
void SetContext(const GlobalOptions& options, Context* context) {
  const std::pair<std::string*, std::string> given[] = {
      {&context->server, options.server},
      {&context->project, options.project},
      {&context->tls_ca, Absolute(options.tls_ca)},
      {&context->tls_cert, Absolute(options.tls_cert)},
      {&context->tls_key, Absolute(options.tls_key)},
      {&context->token_file, Absolute(options.token_file)}};
  for (const auto& [place, value] : given) {
    if (!value.empty()) {
      *place = value;
    }
  }
  if (!options.token_file.empty()) {
    context->token.clear();
  }
}

}  // namespace

absl::StatusOr<int> Config(const Words& words, Session* session) {
  const std::string verb = words.empty() ? "" : words[0];
  const std::string path = ContextFile::DefaultPath();
  LASP_ASSIGN_OR_RETURN(ContextFile file, ContextFile::Load(path));
  if (words.size() == 1 && verb == "get-contexts") {
    PrintContexts(file, session);
    return kExitOk;
  }
  if (words.size() == 1 && verb == "view") {
    PrintFile(file, session);
    return kExitOk;
  }
  if (words.size() != 2) {
    return absl::InvalidArgumentError(
        "expected get-contexts, view, use-context NAME, set-context NAME or delete-context NAME");
  }
  const std::string& name = words[1];
  if (verb == "set-context") {
    if (!IsValidId(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", name, "' is no name of a context: small letters, digits and '-'"));
    }
    if (!session->options().token_file.empty()) {
      // Rather than at its first use.
      LASP_RETURN_IF_ERROR(ReadTokenFile(session->options().token_file).status());
    }
    SetContext(session->options(), &file.contexts[name]);
  } else if (verb == "use-context") {
    LASP_RETURN_IF_ERROR(file.Find(name).status());
    file.current = name;
  } else if (verb == "delete-context") {
    LASP_RETURN_IF_ERROR(file.Find(name).status());
    file.contexts.erase(name);
    file.current = file.current == name ? "" : file.current;
  } else {
    return absl::InvalidArgumentError(absl::StrCat("'lasp config ", verb, "' is no command"));
  }
  LASP_RETURN_IF_ERROR(file.Save(path));
  session->console().Note(absl::StrCat("context ", name, " ",
                                       verb == "set-context"   ? "is set"
                                       : verb == "use-context" ? "is the current one"
                                                               : "is deleted"));
  return kExitOk;
}

}  // namespace lasp::client
