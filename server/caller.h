// Who asks for a change.
#pragma once

#include <string>

namespace lasp::server {

struct Caller {
  // As in AuditRecord; by default whoever is on this host, where there are no tokens.
  std::string principal = "local";
  std::string role = "admin";
  std::string peer = {};

  // As a job's transitions name it.
  std::string Actor() const { return "user/" + principal; }
};

}  // namespace lasp::server
