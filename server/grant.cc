#include "server/grant.h"

#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace lasp::server {

const char* RoleName(Role role) {
  switch (role) {
    case Role::kViewer:
      return "viewer";
    case Role::kEditor:
      return "editor";
    case Role::kAdmin:
      break;
  }
  return "admin";
}

std::optional<Role> ParseRole(absl::string_view name) {
  for (const Role role : {Role::kViewer, Role::kEditor, Role::kAdmin}) {
    if (name == RoleName(role)) {
      return role;
    }
  }
  return std::nullopt;
}

std::string Grant::ProjectText() const {
  return all_projects ? "all projects" : absl::StrJoin(projects, ", ");
}

bool Grant::MaySeeJob(absl::string_view job_name) const {
  return all_projects || (absl::ConsumePrefix(&job_name, "projects/") &&
                          Includes(job_name.substr(0, job_name.find('/'))));
}

const GrantPtr& UnlimitedGrant() {
  static const auto* const grant = new GrantPtr(
      std::make_shared<const Grant>(Grant{.name = "", .role = Role::kAdmin, .all_projects = true}));
  return *grant;
}

const GrantPtr& EmptyGrant() {
  static const auto* const grant = new GrantPtr(std::make_shared<const Grant>());
  return *grant;
}

}  // namespace lasp::server
