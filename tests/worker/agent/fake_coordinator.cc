#include "tests/worker/agent/fake_coordinator.h"

#include <grpcpp/server_builder.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "proto/rpc/channel.h"

namespace lasp::worker::testing {

using lasp::v1::ConnectRequest;
using lasp::v1::ConnectResponse;

void FakeCoordinator::Serve() {
  grpc::ServerBuilder builder;
  ApplyServerPolicy(&builder);
  builder.AddListeningPort(address(), grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
}

void FakeCoordinator::StopServing() {
  if (server_ != nullptr) {
    server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }
}

void FakeCoordinator::Submit(const std::string& job, int64_t generation, int world_size,
                             const lasp::v1::TrainingSpec& spec) {
  const std::lock_guard<std::mutex> lock(mutex_);
  world_size_ = world_size;
  addresses_.clear();
  ready_.clear();
  exits.clear();
  for (int rank = 0; rank < world_size; ++rank) {
    ConnectResponse response;
    lasp::v1::Assignment* const assignment = response.mutable_assignment();
    assignment->mutable_fence()->set_training_job("projects/default/trainingJobs/" + job);
    assignment->mutable_fence()->set_uid("uid-" + job);
    assignment->mutable_fence()->set_generation(generation);
    assignment->mutable_fence()->set_rank(rank);
    assignment->set_slot(rank);
    assignment->set_world_size(world_size);
    *assignment->mutable_spec() = spec;
    Write(std::move(response));
  }
}

void FakeCoordinator::Send(const ConnectResponse& response) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Write(response);
}

bool FakeCoordinator::WaitFor(const std::function<bool()>& condition) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(30), condition);
}

void FakeCoordinator::Write(ConnectResponse response) {
  response.set_acked_sequence(acked_sequence_);
  if (stream_ != nullptr) {
    stream_->Write(response);
  }
}

grpc::Status FakeCoordinator::Connect(grpc::ServerContext* /*context*/, Stream* stream) {
  ConnectRequest request;
  if (!stream->Read(&request) || !request.has_hello()) {
    return {grpc::StatusCode::FAILED_PRECONDITION, "want Hello"};
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (incarnation_ != request.hello().incarnation()) {
      incarnation_ = request.hello().incarnation();
      acked_sequence_ = 0;
    }
    stream_ = stream;
    last_hello = request.hello();
    ++connections;
    connected = true;
    ConnectResponse welcome;
    welcome.mutable_welcome()->set_session_id("session");
    welcome.mutable_welcome()->mutable_heartbeat_interval()->set_nanos(200'000'000);
    Write(welcome);
    changed_.notify_all();
  }
  while (stream->Read(&request)) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Handle(request);
    changed_.notify_all();
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  stream_ = nullptr;
  connected = false;
  changed_.notify_all();
  return grpc::Status::OK;
}

void FakeCoordinator::Handle(const ConnectRequest& request) {
  switch (request.body_case()) {
    case ConnectRequest::kHeartbeat:
      ++heartbeats;
      break;
    case ConnectRequest::kRankAddress:
      if (!taking_addresses) {
        break;
      }
      addresses_[request.rank_address().fence().rank()] = request.rank_address();
      if (addresses_.size() == static_cast<size_t>(world_size_)) {
        ConnectResponse response;
        for (const auto& [rank, address] : addresses_) {
          response.mutable_peer_addresses()->add_addresses(address.address());
        }
        for (const auto& [rank, address] : addresses_) {
          *response.mutable_peer_addresses()->mutable_fence() = address.fence();
          Write(response);
        }
      }
      break;
    case ConnectRequest::kRankReady:
      ready_[request.rank_ready().fence().rank()] = request.rank_ready();
      if (ready_.size() == static_cast<size_t>(world_size_)) {
        for (const auto& [rank, ready] : ready_) {
          ConnectResponse response;
          *response.mutable_start()->mutable_fence() = ready.fence();
          Write(response);
        }
      }
      break;
    case ConnectRequest::kStepReports: {
      auto& known = steps[request.step_reports().fence().generation()];
      for (const lasp::v1::StepMetrics& step : request.step_reports().steps()) {
        if (!known.empty() && step.step() <= known.back().step()) {
          ++repeated_steps;
        } else {
          known.push_back(step);
        }
      }
      break;
    }
    case ConnectRequest::kRankExited:
      exits[request.rank_exited().fence().rank()] = request.rank_exited();
      break;
    case ConnectRequest::kLogChunk: {
      const lasp::v1::LogChunk& chunk = request.log_chunk();
      RankLogText& log = logs[{chunk.fence().generation(), chunk.fence().rank()}];
      const int64_t end = log.gap_bytes + static_cast<int64_t>(log.text.size());
      if (chunk.offset() > end &&
          std::exchange(log.refused_offset, chunk.offset()) != chunk.offset()) {
        // Asks once for what lies between.
        ConnectResponse response;
        *response.mutable_log_position()->mutable_fence() = chunk.fence();
        response.mutable_log_position()->set_offset(end);
        Write(std::move(response));
        break;
      }
      const int64_t known =
          std::clamp<int64_t>(end - chunk.offset(), 0, static_cast<int64_t>(chunk.data().size()));
      log.gap_bytes += std::max<int64_t>(0, chunk.offset() - end);
      log.text += chunk.data().substr(static_cast<size_t>(known));
      break;
    }
    case ConnectRequest::kShardWritten:
      shards[request.shard_written().fence().rank()] = request.shard_written();
      break;
    case ConnectRequest::kDraining:
      draining = true;
      break;
    case ConnectRequest::kHello:
    case ConnectRequest::BODY_NOT_SET:
      break;
  }
  if (acknowledging &&
      (request.has_step_reports() || request.has_rank_exited() || request.has_shard_written())) {
    acked_sequence_ = std::max(acked_sequence_, request.sequence());
    ConnectResponse response;
    response.mutable_ack();
    Write(response);
  }
}

}  // namespace lasp::worker::testing
