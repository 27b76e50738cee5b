#include "server/hello_check.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/protocol_range.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/worker_limits.h"
#include "server/request_id.h"

namespace lasp::server {
namespace {

constexpr size_t kMaxNameBytes = 256;
// Of a GPU, so that a worker with all its slots fits in one message.
constexpr size_t kMaxGpuTextBytes = 128;
constexpr int kMaxGpuLinks = 64;

void CheckGpu(const lasp::v1::Slot& slot, std::set<std::string>* uuids,
              std::vector<FieldViolation>* violations) {
  const lasp::v1::Gpu& gpu = slot.gpu();
  const std::string field = absl::StrCat("hello.slots[", slot.index(), "].gpu");
  for (const std::string* text : {&gpu.uuid(), &gpu.name(), &gpu.pci_bus_id()}) {
    if (text->size() > kMaxGpuTextBytes) {
      violations->push_back({field, absl::StrCat("uuid, name and pci_bus_id have at most ",
                                                 kMaxGpuTextBytes, " characters")});
      return;
    }
  }
  if (gpu.uuid().empty() || !uuids->insert(gpu.uuid()).second) {
    violations->push_back({field, "has no uuid of its own"});
  }
  if (gpu.memory_bytes() < 0 || gpu.links_size() > kMaxGpuLinks) {
    violations->push_back(
        {field, absl::StrCat("has negative memory or more than ", kMaxGpuLinks, " links")});
  }
}

}  // namespace

absl::Status CheckHello(const lasp::v1::Hello& hello) {
  const ProtocolRange agent = AgentProtocol(hello);
  if (!CommonVersion(agent, kWorkerProtocol).has_value()) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat("the agent speaks worker protocol version ", agent.ToString(),
                     ", this coordinator ", kWorkerProtocol.ToString(), ": upgrade ",
                     agent.oldest > kWorkerProtocol.newest ? "lasp-server" : "lasp-worker",
                     "; releases that follow one another understand each other"),
        "PROTOCOL_VERSION_MISMATCH");
  }
  std::vector<FieldViolation> violations;
  if (!IsValidWorkerId(hello.worker_id())) {
    violations.push_back({"hello.worker_id", absl::StrCat("'", hello.worker_id().substr(0, 80),
                                                          "' is not of the form "
                                                          "[A-Za-z0-9]([A-Za-z0-9._-]{0,252})")});
  }
  if (hello.incarnation().empty() || !CheckRequestId(hello.incarnation()).ok()) {
    violations.push_back({"hello.incarnation", "is not a UUID"});
  }
  if (hello.host_name().size() > kMaxNameBytes || hello.version().size() > kMaxNameBytes) {
    violations.push_back({"hello", absl::StrCat("host_name and version have at most ",
                                                kMaxNameBytes, " characters")});
  }
  if (hello.slots_size() > kMaxWorkerSlots) {
    violations.push_back({"hello.slots", absl::StrCat("has ", hello.slots_size(),
                                                      " entries: at most ", kMaxWorkerSlots)});
  }
  std::set<int> indices;
  std::set<std::string> uuids;
  for (const lasp::v1::Slot& slot : hello.slots()) {
    if (slot.index() < 0 || !indices.insert(slot.index()).second) {
      violations.push_back(
          {"hello.slots", absl::StrCat("index ", slot.index(), " is negative or given twice")});
      break;
    }
    if (!lasp::v1::Slot::Kind_IsValid(slot.kind())) {
      violations.push_back({"hello.slots", absl::StrCat("index ", slot.index(),
                                                        " is of the unknown kind ", slot.kind())});
    }
    if (slot.kind() == lasp::v1::Slot::KIND_GPU) {
      CheckGpu(slot, &uuids, &violations);
    }
  }
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations, "INVALID_HELLO");
}

}  // namespace lasp::server
