// Who may call what: one row for every method of every service that is served.
#pragma once

#include "absl/strings/string_view.h"
#include "server/grant.h"

namespace lasp::server {

// What a method asks of its caller.
enum class Audience {
  kAnyone,  // tells nothing of jobs; probes have no token
  kAgents,  // the worker plane: a certificate, not a token
  kUsers,   // a token with at least the rule's role
};

// Where the role must be held.
enum class Scope {
  kProject,  // in the project that the request's name or parent lies in; for `-`, in any
  kAny,      // in any project
  kFleet,    // in all projects: it concerns everybody's jobs
};

struct AccessRule {
  // /package.Service/Method
  const char* method;
  Audience audience = Audience::kUsers;
  Role role = Role::kAdmin;
  Scope scope = Scope::kFleet;
  // The service takes the request as bytes, and parses it itself.
  bool takes_bytes = false;
};

// Null for a method that is in no row.
const AccessRule* FindAccessRule(absl::string_view method);

}  // namespace lasp::server
