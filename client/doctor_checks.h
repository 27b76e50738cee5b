// What `lasp doctor` makes of what it has found: a verdict, and how to mend it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "lasp/v1/server_service.pb.h"
#include "lasp/v1/worker.pb.h"

namespace lasp::client {

enum class Verdict { kOk, kWarn, kFail, kSkipped };

// ok, warn, fail or skipped.
const char* VerdictName(Verdict verdict);

struct Finding {
  // For example "agent clocks".
  std::string check;
  Verdict verdict = Verdict::kOk;
  std::string message;
  // Empty where all is well.
  std::string mend;
};

// `what` names the certificate.
Finding CheckCertificateEnd(const std::string& what, absl::Time end, absl::Time now);
Finding CheckCertificateTrust(const std::string& problem);
// `status` is that of a call with the token.
Finding CheckToken(const absl::Status& status, bool has_token, const lasp::v1::ServerInfo& info,
                   absl::Time now);
Finding CheckVersions(const std::string& client, const std::string& server);
// `offset`: by how much the coordinator's clock is ahead; `doubt`: how far off that may be.
Finding CheckClock(absl::Duration offset, absl::Duration doubt);
// Its disk, and whether it can be written.
Finding CheckStore(const lasp::v1::ServerInfo& info);

// Of the agents, one finding a check: leases, versions, clocks, disks, GPUs. Those that are lost
// count for the first alone.
std::vector<Finding> CheckAgents(const std::vector<lasp::v1::Worker>& workers,
                                 const lasp::v1::ServerInfo& info);
// The same checks where they could not be made.
std::vector<Finding> SkippedAgentChecks(const std::string& why);

}  // namespace lasp::client
