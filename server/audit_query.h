// Which audit records are asked for, and what comes back.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "lasp/v1/audit_service.pb.h"

namespace lasp::server {

// In front of these rows of the two tables.
struct AuditPosition {
  int64_t change = std::numeric_limits<int64_t>::max();
  int64_t refusal = std::numeric_limits<int64_t>::max();
};

struct AuditQuery {
  // Empty for all.
  std::string principal;
  // A resource's name, or the beginning of names up to a slash; empty for all.
  std::string resource;
  absl::Time start = absl::InfinitePast();
  // Not included.
  absl::Time end = absl::InfiniteFuture();
  bool refusals_only = false;
  AuditPosition before;
};

struct AuditPage {
  // Newest first.
  std::vector<lasp::v1::AuditRecord> records;
  // Where the next page begins; meaningless where this was the last.
  AuditPosition next;
  bool last = false;
};

}  // namespace lasp::server
