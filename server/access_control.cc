#include "server/access_control.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"

namespace lasp::server {
namespace {

absl::Status Unauthenticated(absl::string_view message, absl::string_view reason) {
  return ErrorWithReason(absl::StatusCode::kUnauthenticated, message, reason);
}

absl::Status Denied(const Grant& grant, const AccessRule& rule, const std::string& project,
                    absl::string_view reason) {
  const absl::string_view path = rule.method;
  return ErrorWithReason(
      absl::StatusCode::kPermissionDenied,
      absl::StrCat("the token ", grant.name, " is ", RoleName(grant.role), " in ",
                   grant.ProjectText(), ": ", path.substr(path.rfind('/') + 1), " needs ",
                   RoleName(rule.role), " in ", project),
      reason, {{"role", RoleName(rule.role)}, {"project", project}});
}

// The project of projects/{project}[/…]; `-` for all.
absl::StatusOr<std::string> ProjectOf(absl::string_view resource) {
  absl::string_view rest = resource;
  absl::ConsumePrefix(&rest, "projects/");
  const size_t end = resource.size() - rest.size() + std::min(rest.find('/'), rest.size());
  return ParseProjectName(resource.substr(0, end), /*allow_any=*/true);
}

}  // namespace

absl::StatusOr<GrantPtr> AccessControl::Authenticate(
    const std::vector<absl::string_view>& authorization, absl::Time now) const {
  constexpr absl::string_view kScheme = "Bearer ";
  if (authorization.size() != 1 || !absl::StartsWithIgnoreCase(authorization[0], kScheme)) {
    return Unauthenticated(
        "this coordinator asks for a token: send it as `authorization: Bearer TOKEN`",
        "TOKEN_MISSING");
  }
  GrantPtr grant = credentials_->tokens()->Find(authorization[0].substr(kScheme.size()));
  if (grant == nullptr) {
    return Unauthenticated("this coordinator does not know the token: was it revoked or mistyped?",
                           "TOKEN_UNKNOWN");
  }
  if (now >= grant->end) {
    return Unauthenticated(
        absl::StrCat("the token ", grant->name, " ended at ",
                     absl::FormatTime(absl::RFC3339_sec, grant->end, absl::UTCTimeZone()),
                     ": ask the operator for a new one"),
        "TOKEN_EXPIRED");
  }
  return grant;
}

absl::Status AccessControl::Authorize(const Grant& grant, const AccessRule& rule,
                                      absl::string_view resource) {
  std::string project;
  bool included = true;
  if (rule.scope == Scope::kFleet) {
    project = "all projects";
    included = grant.all_projects;
  } else if (rule.scope == Scope::kProject) {
    LASP_ASSIGN_OR_RETURN(project, ProjectOf(resource));
    included = project == kAnyProject || grant.Includes(project);
    project = project == kAnyProject ? "any project" : absl::StrCat("project ", project);
  } else {
    project = "any project";
  }
  if (!included) {
    return Denied(grant, rule, project, "PROJECT_NOT_GRANTED");
  }
  if (grant.role < rule.role) {
    return Denied(grant, rule, project, "ROLE_TOO_LOW");
  }
  return absl::OkStatus();
}

GrantPtr AccessControl::Present(absl::string_view name, absl::Time now) const {
  GrantPtr grant = credentials_->tokens()->FindByName(name);
  return grant != nullptr && now < grant->end ? grant : EmptyGrant();
}

bool AccessControl::Holds(const Grant& grant, absl::Time now) const {
  const GrantPtr present = credentials_->tokens()->FindByDigest(grant.token);
  return present != nullptr && now < present->end && present->AllowsAs(grant);
}

}  // namespace lasp::server
