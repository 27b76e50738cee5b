// An agent as the coordinator's core sees one, for tests without a connection.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/protocol_range.h"
#include "proto/rpc/rank_exit_code.h"
#include "server/agent_session.h"

namespace lasp::server {

// Collects what the coordinator sends.
class RecordingLink final : public AgentLink {
 public:
  void Send(lasp::v1::ConnectResponse response) override {
    if (!closed.has_value()) {
      messages.push_back(std::move(response));
    }
  }

  void Close(const absl::Status& status) override { closed = status; }

  std::deque<lasp::v1::ConnectResponse> messages;
  std::optional<absl::Status> closed;
};

struct FakeRank {
  lasp::v1::Fence fence;
  int slot = 0;
  lasp::v1::RankStatus::Phase phase = lasp::v1::RankStatus::PHASE_STARTING;

  // The same rank of the same generation.
  bool Has(const lasp::v1::Fence& other) const {
    return fence.uid() == other.uid() && fence.rank() == other.rank() &&
           fence.generation() == other.generation();
  }
};

// An agent that obeys at once: it says addresses, becomes ready, and ends ranks that are stopped.
struct FakeAgent {
  std::string id;
  // CPU slots, behind those of its GPUs.
  int slots = 0;
  int gpus = 0;
  std::string incarnation = "first";
  int newest_protocol = kWorkerProtocol.newest;
  int64_t sequence = 0;
  std::shared_ptr<RecordingLink> link;
  AgentSessionPtr session;
  std::vector<FakeRank> ranks;
  // What it was told, for tests to look at.
  std::vector<lasp::v1::ConnectResponse> received;
  // Turned off: the agent stays silent about its ranks, as if it hung there.
  bool starts_ranks = true;
  bool readies_ranks = true;
  bool obeys_stops = true;
  // Only rank 0 says more than that it is there.
  bool names_first_address_only = false;
  // What its ranks say when they are ready.
  std::string gemm_record;
  // What they leave when they are told to leave their state; without it they are killed.
  std::function<lasp::v1::StateLeft(const lasp::v1::Fence&)> leave;

  FakeRank* Find(const std::string& job, int rank = -1) {
    for (FakeRank& entry : ranks) {
      if (entry.fence.training_job() == job && (rank < 0 || entry.fence.rank() == rank)) {
        return &entry;
      }
    }
    return nullptr;
  }

  int Count(lasp::v1::ConnectResponse::BodyCase body) const {
    int count = 0;
    for (const auto& message : received) {
      count += message.body_case() == body ? 1 : 0;
    }
    return count;
  }

  void Forget(const lasp::v1::Fence& fence) {
    std::erase_if(ranks, [&fence](const FakeRank& rank) { return rank.Has(fence); });
  }

  // What it answers to `message`, having done as it is told.
  std::vector<lasp::v1::ConnectRequest> React(const lasp::v1::ConnectResponse& message) {
    received.push_back(message);
    lasp::v1::ConnectRequest answer;
    if (message.has_assignment() && starts_ranks) {
      const lasp::v1::Assignment& assignment = message.assignment();
      ranks.push_back({.fence = assignment.fence(), .slot = assignment.slot()});
      *answer.mutable_rank_address()->mutable_fence() = assignment.fence();
      if (assignment.fence().rank() == 0 || !names_first_address_only) {
        answer.mutable_rank_address()->set_address(absl::StrCat(id, ":", assignment.slot()));
      }
      return {answer};
    }
    if (message.has_peer_addresses() && readies_ranks) {
      const lasp::v1::Fence& fence = message.peer_addresses().fence();
      if (FakeRank* const rank = Find(fence.training_job(), fence.rank()); rank != nullptr) {
        rank->phase = lasp::v1::RankStatus::PHASE_READY;
        *answer.mutable_rank_ready()->mutable_fence() = fence;
        answer.mutable_rank_ready()->set_gemm_record(gemm_record);
        return {answer};
      }
    }
    if (message.has_start()) {
      const lasp::v1::Fence& fence = message.start().fence();
      if (FakeRank* const rank = Find(fence.training_job(), fence.rank()); rank != nullptr) {
        rank->phase = lasp::v1::RankStatus::PHASE_TRAINING;
      }
    }
    if (message.has_stop() && obeys_stops) {
      return EndRank(message.stop());
    }
    return {};
  }

 private:
  std::vector<lasp::v1::ConnectRequest> EndRank(const lasp::v1::Stop& stop) {
    constexpr int kKilled = 128 + 9;
    const auto rank = std::find_if(ranks.begin(), ranks.end(), [&stop](const FakeRank& entry) {
      return entry.Has(stop.fence());
    });
    if (rank == ranks.end()) {
      return {};
    }
    lasp::v1::ConnectRequest answer;
    auto* const exited = answer.mutable_rank_exited();
    *exited->mutable_fence() = rank->fence;
    exited->set_slot(rank->slot);
    exited->set_exit_code(stop.mode() == lasp::v1::Stop::MODE_DRAIN ? kRankDrained : kKilled);
    if (stop.mode() == lasp::v1::Stop::MODE_LEAVE_STATE && leave != nullptr) {
      exited->set_exit_code(kRankRetry);
      *exited->mutable_state_left() = leave(rank->fence);
    }
    ranks.erase(rank);
    return {answer};
  }
};

}  // namespace lasp::server
