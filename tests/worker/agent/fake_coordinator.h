// A coordinator for tests: the worker plane over real gRPC, which gathers one job at a time onto
// the agents that have connected, and keeps what they say.
#pragma once

#include <grpcpp/server.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lasp/v1/worker_service.grpc.pb.h"

namespace lasp::worker::testing {

// Thread-safe. Survives Stop: what it has been told stays, as a coordinator's store would.
class FakeCoordinator final : public lasp::v1::WorkerService::Service {
 public:
  ~FakeCoordinator() override { StopServing(); }

  // Serves on the port of the last time, or on a free one.
  void Serve();
  void StopServing();

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  // Sends assignments of every rank of a job to the connected agent.
  void Submit(const std::string& job, int64_t generation, int world_size,
              const lasp::v1::TrainingSpec& spec);
  void Send(const lasp::v1::ConnectResponse& response);

  // Waits, at most 30 s, until `condition` holds; it runs under the lock and may read all below.
  bool WaitFor(const std::function<bool()>& condition);

  // What the agent has said. Read in WaitFor, or when all is still.
  struct RankLogText {
    std::string text;
    int64_t gap_bytes = 0;
    int64_t refused_offset = -1;
  };

  int connections = 0;
  bool connected = false;
  lasp::v1::Hello last_hello;
  int64_t heartbeats = 0;
  bool draining = false;
  // Steps in the order of their first arrival, by generation, and how many came more than once.
  std::map<int64_t, std::vector<lasp::v1::StepMetrics>> steps;
  int64_t repeated_steps = 0;
  std::map<int, lasp::v1::RankExited> exits;
  // The last of each rank.
  std::map<int, lasp::v1::ShardWritten> shards;
  // By (generation, rank).
  std::map<std::pair<int64_t, int>, RankLogText> logs;
  // Whether reports are acknowledged.
  bool acknowledging = true;
  // Whether it keeps where ranks listen, and tells them. Set while nothing is connected, or no
  // rank runs.
  bool taking_addresses = true;

  grpc::Status Connect(grpc::ServerContext* context,
                       grpc::ServerReaderWriter<lasp::v1::ConnectResponse,
                                                lasp::v1::ConnectRequest>* stream) override;

 private:
  using Stream = grpc::ServerReaderWriter<lasp::v1::ConnectResponse, lasp::v1::ConnectRequest>;

  void Handle(const lasp::v1::ConnectRequest& request);
  void Write(lasp::v1::ConnectResponse response);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  Stream* stream_ = nullptr;
  int64_t acked_sequence_ = 0;
  std::string incarnation_;
  int world_size_ = 0;
  std::map<int, lasp::v1::RankAddress> addresses_;
  std::map<int, lasp::v1::RankReady> ready_;
};

}  // namespace lasp::worker::testing
