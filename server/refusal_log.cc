#include "server/refusal_log.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "server/audit_record.h"
#include "server/valid_utf8.h"

namespace lasp::server {
namespace {

// Longer than every name there can be.
constexpr size_t kMaxResourceBytes = 256;
// Under a key that no kind has.
constexpr char kOthers[] = "";

}  // namespace

void RefusalLog::Add(const Caller& caller, absl::string_view method, absl::string_view resource,
                     const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  std::string key = absl::StrCat(caller.principal, " ", caller.peer, " ", method, " ",
                                 static_cast<int>(status.code()), " ", reason);
  MutexLock lock(&mutex_);
  auto found = kinds_.find(key);
  if (found == kinds_.end()) {
    const bool room = kinds_.size() < kMaxKinds;
    found = kinds_.try_emplace(room ? std::move(key) : kOthers).first;
    Kind& kind = found->second;
    if (room) {
      kind.record = NewAuditRecord(caller, method, "", clock_->Now());
      kind.record.set_code(static_cast<int>(status.code()));
      kind.record.set_reason(reason);
    } else if (kind.count == 0) {
      kind.record =
          NewAuditRecord({.principal = "", .role = "", .peer = ""}, "", "", clock_->Now());
      kind.record.set_code(static_cast<int>(status.code()));
      kind.record.set_detail("refusals of many callers, not told apart");
    }
  }
  Kind& kind = found->second;
  if (kind.count++ == 0) {
    *kind.record.mutable_time() = ToProtoTime(clock_->Now());
    if (found->first != kOthers) {
      kind.record.set_resource(ValidUtf8(std::string(resource.substr(0, kMaxResourceBytes))));
    }
  }
}

std::vector<lasp::v1::AuditRecord> RefusalLog::Take(bool all) {
  const absl::Duration now = clock_->Monotonic();
  std::vector<lasp::v1::AuditRecord> taken;
  MutexLock lock(&mutex_);
  for (auto it = kinds_.begin(); it != kinds_.end();) {
    Kind& kind = it->second;
    const bool due = now - kind.last_taken >= kInterval;
    if (kind.count > 0 && (due || all)) {
      kind.record.set_count(std::exchange(kind.count, 0));
      kind.last_taken = now;
      taken.push_back(kind.record);
    } else if (kind.count == 0 && due) {
      it = kinds_.erase(it);
      continue;
    }
    ++it;
  }
  return taken;
}

}  // namespace lasp::server
