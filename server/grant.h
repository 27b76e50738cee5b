// What a token allows.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lasp::server {

// Each may all that those before it may.
enum class Role { kViewer, kEditor, kAdmin };

// viewer, editor or admin.
const char* RoleName(Role role);
std::optional<Role> ParseRole(absl::string_view name);

// SHA-256 of a token.
using TokenDigest = std::array<unsigned char, 32>;

struct Grant {
  // The token's, for messages and logs.
  std::string name;
  Role role = Role::kViewer;
  bool all_projects = false;
  std::set<std::string, std::less<>> projects = {};
  absl::Time end = absl::InfiniteFuture();
  // Which token it is: at a rotation the name passes on to the next one.
  TokenDigest token = {};

  bool Includes(absl::string_view project) const {
    return all_projects || projects.find(project) != projects.end();
  }

  // Whether both allow the same, for however long.
  bool AllowsAs(const Grant& other) const {
    return role == other.role && all_projects == other.all_projects && projects == other.projects;
  }

  // "default, nlp" or "all projects".
  std::string ProjectText() const;

  // Whether the job of this name is one that its bearer may see.
  bool MaySeeJob(absl::string_view job_name) const;

  bool operator==(const Grant&) const = default;
};

using GrantPtr = std::shared_ptr<const Grant>;

// Of everybody, where the coordinator has no tokens: all there is.
const GrantPtr& UnlimitedGrant();
// Of nobody: no project.
const GrantPtr& EmptyGrant();

}  // namespace lasp::server
