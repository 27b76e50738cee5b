#include "client/global_flags.h"

#include "absl/strings/str_cat.h"
#include "client/flag_values.h"
#include "client/time_text.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using Line = CommandLine;

absl::Status Ok() { return absl::OkStatus(); }

FlagSpec PathFlag(const char* name, const char* help,
                  absl::Status (*set)(const std::string& value, Line* line)) {
  return {name, '\0', "FILE", help, set, {}, /*is_file=*/true};
}

}  // namespace

std::vector<FlagSpec> MakeGlobalFlags() {
  return {
      {"--server", 's', "HOST:PORT", "The coordinator (or LASP_SERVER; default 127.0.0.1:7070)",
       [](const std::string& value, Line* line) {
         LASP_ASSIGN_OR_RETURN(line->global.server, ReadServer("--server", value));
         return Ok();
       }},
      {"--project",
       'p',
       "ID",
       "The project (or LASP_PROJECT; default \"default\")",
       [](const std::string& value, Line* line) {
         LASP_ASSIGN_OR_RETURN(line->global.project, ReadProject("--project", value));
         return Ok();
       },
       {},
       false,
       false,
       NameKind::kProjects},
      {"--context",
       '\0',
       "NAME",
       "The context (or LASP_CONTEXT; default the current one)",
       [](const std::string& value, Line* line) {
         line->global.context = value;
         return Ok();
       },
       {},
       false,
       false,
       NameKind::kContexts},
      PathFlag("--token_file", "Holds the token (or LASP_TOKEN)",
               [](const std::string& value, Line* line) {
                 line->global.token_file = value;
                 return Ok();
               }),
      PathFlag("--tls_ca", "Authority of the coordinator's certificate; without it no TLS",
               [](const std::string& value, Line* line) {
                 line->global.tls_ca = value;
                 return Ok();
               }),
      PathFlag("--tls_cert", "Own certificate, where one is asked for",
               [](const std::string& value, Line* line) {
                 line->global.tls_cert = value;
                 return Ok();
               }),
      PathFlag("--tls_key", "Its key",
               [](const std::string& value, Line* line) {
                 line->global.tls_key = value;
                 return Ok();
               }),
      {"--output", 'o', "FORM", "table, wide, json, yaml or name",
       [](const std::string& value, Line* line) {
         LASP_ASSIGN_OR_RETURN(const size_t index, ReadChoice("--output", value, OutputChoices()));
         line->global.output = static_cast<OutputFormat>(index);
         return Ok();
       },
       OutputChoices()},
      {"--quiet", 'q', "", "Nothing on stderr but errors",
       [](const std::string&, Line* line) {
         line->global.quiet = true;
         return Ok();
       }},
      {"--verbose", 'v', "", "More on stderr",
       [](const std::string&, Line* line) {
         ++line->global.verbosity;
         return Ok();
       }},
      {"--color", '\0', "WHEN", "auto, always or never",
       [](const std::string& value, Line* line) {
         LASP_ASSIGN_OR_RETURN(const size_t index, ReadChoice("--color", value, ColorChoices()));
         line->global.color = static_cast<ColorMode>(index);
         return Ok();
       },
       ColorChoices()},
      {"--timeout", '\0', "TIME", "The most a call may take (default 10s, changes 30s)",
       [](const std::string& value, Line* line) {
         const auto span = ParseSpan(value);
         if (!span.ok()) {
           return absl::InvalidArgumentError(
               absl::StrCat("--timeout ", value, ": expected a length of time such as 30s"));
         }
         line->global.timeout = *span;
         return Ok();
       }},
      {"--help", 'h', "", "Help on the command",
       [](const std::string&, Line* line) {
         line->help = true;
         return Ok();
       }},
  };
}

}  // namespace lasp::client
