// Refusals on their way to the audit log: however many there are, few are written.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lasp/v1/audit_service.pb.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"
#include "server/caller.h"

namespace lasp::server {

// The first refusal of a kind (caller, host, method, code and reason) is to be written at once;
// those that are like it are counted, and written once a minute. Kinds beyond a bound are one.
// Thread-safe.
class RefusalLog {
 public:
  static constexpr size_t kMaxKinds = 128;
  static constexpr absl::Duration kInterval = absl::Minutes(1);

  // `clock` outlives it.
  explicit RefusalLog(const Clock* clock) : clock_(clock) {}

  // `status` is not OK. `resource` is what the caller wrote: it is cut short.
  void Add(const Caller& caller, absl::string_view method, absl::string_view resource,
           const absl::Status& status);

  // What is to be written now; with `all`, everything.
  std::vector<lasp::v1::AuditRecord> Take(bool all = false);

 private:
  struct Kind {
    lasp::v1::AuditRecord record;
    // Not yet taken.
    int64_t count = 0;
    absl::Duration last_taken = -absl::InfiniteDuration();
  };

  const Clock* const clock_;
  Mutex mutex_;
  std::map<std::string, Kind> kinds_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
