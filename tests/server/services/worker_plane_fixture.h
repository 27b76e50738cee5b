// A coordinator, and what tests say to it in the place of an agent.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/server/services/fake_agent.h"
#include "tests/server/services/running_server.h"

namespace lasp::server {

class WorkerPlaneFixture : public ::testing::Test {
 protected:
  std::unique_ptr<FakeAgent> NewAgent(const std::string& id, int slots) {
    return std::make_unique<FakeAgent>(server_.server().addresses().worker_address, id, slots);
  }

  absl::StatusOr<v1::Worker> GetWorker(const std::string& id) {
    v1::GetWorkerRequest request;
    request.set_name("workers/" + id);
    return server_.Call(server_.workers.get(), &v1::WorkerAdminService::Stub::GetWorker, request);
  }

  // Polls with a deadline: the state follows from messages that are not answered.
  v1::TrainingJob AwaitState(const std::string& id, v1::TrainingJob::State state) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (true) {
      auto job = server_.Get(id);
      if (!job.ok() || job->state() == state || absl::Now() > deadline) {
        EXPECT_TRUE(job.ok() && job->state() == state)
            << (job.ok() ? job->ShortDebugString() : job.status().ToString());
        return job.ok() ? *job : v1::TrainingJob();
      }
      absl::SleepFor(absl::Milliseconds(20));
    }
  }

  // Takes the assignments of all ranks of one generation, which must be on this agent.
  static std::vector<v1::Fence> TakeAssignments(FakeAgent* agent, int ranks) {
    std::vector<v1::Fence> fences;
    fences.reserve(ranks);
    for (int i = 0; i < ranks; ++i) {
      auto message = agent->Await(v1::ConnectResponse::kAssignment);
      if (!message.has_value()) {
        ADD_FAILURE() << "no assignment";
        break;
      }
      EXPECT_EQ(message->assignment().world_size(), ranks);
      EXPECT_TRUE(message->assignment().has_spec());
      fences.push_back(message->assignment().fence());
    }
    return fences;
  }

  // Exchanges addresses and reports every rank ready.
  static void Connect(FakeAgent* agent, const std::vector<v1::Fence>& fences) {
    for (const v1::Fence& fence : fences) {
      v1::ConnectRequest request;
      *request.mutable_rank_address()->mutable_fence() = fence;
      request.mutable_rank_address()->set_address(absl::StrCat("address-", fence.rank()));
      agent->Send(std::move(request));
    }
    for (size_t i = 0; i < fences.size(); ++i) {
      const auto peers = agent->Await(v1::ConnectResponse::kPeerAddresses);
      ASSERT_TRUE(peers.has_value());
      ASSERT_EQ(static_cast<size_t>(peers->peer_addresses().addresses_size()), fences.size());
    }
    for (const v1::Fence& fence : fences) {
      v1::ConnectRequest request;
      *request.mutable_rank_ready()->mutable_fence() = fence;
      agent->Send(std::move(request));
    }
    for (size_t i = 0; i < fences.size(); ++i) {
      ASSERT_TRUE(agent->Await(v1::ConnectResponse::kStart).has_value());
    }
  }

  static v1::ConnectRequest Steps(const v1::Fence& fence, int64_t first, int64_t last) {
    v1::ConnectRequest request;
    *request.mutable_step_reports()->mutable_fence() = fence;
    for (int64_t step = first; step <= last; ++step) {
      v1::StepMetrics* row = request.mutable_step_reports()->add_steps();
      row->set_step(step);
      row->set_loss(5.0 / static_cast<double>(step));
      row->set_generation(fence.generation());
      row->set_tokens_per_second(1'000);
    }
    return request;
  }

  static v1::ConnectRequest Exit(const v1::Fence& fence, int slot, int code, int64_t step) {
    v1::ConnectRequest request;
    auto* exited = request.mutable_rank_exited();
    *exited->mutable_fence() = fence;
    exited->set_exit_code(code);
    exited->set_step(step);
    exited->set_slot(slot);
    return request;
  }

  static v1::ConnectRequest Log(const v1::Fence& fence, int64_t offset, const std::string& data) {
    v1::ConnectRequest request;
    auto* chunk = request.mutable_log_chunk();
    *chunk->mutable_fence() = fence;
    chunk->set_offset(offset);
    chunk->set_data(data);
    return request;
  }

  RunningServer server_;
};

}  // namespace lasp::server
