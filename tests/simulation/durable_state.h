// What the coordinator's store holds for certain: all that a crash leaves of it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/job_store.h"

namespace lasp::simulation {

class DurableState {
 public:
  virtual ~DurableState() = default;

  // One transaction, whole.
  virtual absl::Status Apply(const std::vector<server::Mutation>& mutations) = 0;

  // As in server::JobStore.
  virtual absl::StatusOr<server::StoreContents> Load() = 0;
  virtual absl::StatusOr<std::vector<lasp::v1::Transition>> Transitions(int64_t job_id,
                                                                        int limit) = 0;
  virtual absl::StatusOr<std::vector<server::StoredTransition>> LatestTransitions(int limit) = 0;
};

}  // namespace lasp::simulation
