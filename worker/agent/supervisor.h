// Starts, watches and ends the ranks of one agent. One thread does it all: it forks (and lives as
// long as the agent, since the kernel kills a rank when the thread that forked it ends), speaks
// with the ranks, and learns of a death at once from the process's descriptor.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/mutex.h"
#include "proto/spec/unique_fd.h"
#include "worker/agent/left_states.h"
#include "worker/agent/rank_keeper.h"
#include "worker/agent/rank_ledger.h"
#include "worker/agent/rank_link.h"
#include "worker/agent/rank_logs.h"
#include "worker/agent/rank_observer.h"
#include "worker/agent/rank_process.h"

namespace lasp::worker {

struct SupervisorOptions {
  // What runs on CPU slots.
  std::string rank_binary;
  // What runs on GPU slots, each seeing its slot's GPU alone.
  std::string cuda_rank_binary = {};
  // Slot i has index i.
  std::vector<lasp::v1::Slot> slots = {};
  // BLAS and OpenMP threads of one rank.
  int threads_a_rank = 1;
  // Passed on to ranks, see Setup.
  std::vector<std::string> path_roots = {};
  std::string rank_address = "127.0.0.1";
  std::string dump_directory = {};
  std::string checkpoint_root = {};
  // Where ranks leave state for the next generation; empty: nowhere. Emptied at the start.
  std::string memory_root = {};
  // After its last message, or after closing its channel, a rank has so long to end.
  absl::Duration leave_time = absl::Seconds(10);
  // Entries NAME=VALUE the ranks' own environment is chosen from.
  std::vector<std::string> environment = {};
};

// Thread-safe. Calls return at once; what comes of them is told to the observer.
class Supervisor final : public RankKeeper {
 public:
  // `ledger`, `logs` and `observer` outlive it.
  Supervisor(SupervisorOptions options, const RankLedger* ledger, RankLogs* logs,
             RankObserver* observer);
  // Kills what still runs.
  ~Supervisor() override;
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  void Launch(const lasp::v1::Assignment& assignment) override;
  void SetPeers(const lasp::v1::PeerAddresses& peers) override;
  void Train(const lasp::v1::Start& start) override;
  void Stop(const lasp::v1::Stop& stop) override;
  void DrainAll(absl::Duration grace) override;
  void KillAll(const std::string& reason) override;

  std::vector<LiveRank> Ranks() const override;
  bool WaitUntilSettled(absl::Duration timeout) const override;
  bool WaitUntilEmpty(absl::Duration timeout) const override;

 private:
  friend class SupervisorTestPeer;

  struct Rank {
    lasp::v1::Assignment assignment;
    RankProcess process;
    std::unique_ptr<RankLink> link;
    std::optional<lasp::internal::v1::RankFinished> finished;
    int64_t last_step = 0;
    // When it is killed, and why.
    absl::Duration kill_at = absl::InfiniteDuration();
    std::string kill_reason;
    bool killed = false;
    // Why it is to be killed once it has told where it is; empty where it was not asked.
    std::string dump_reason;
    // It leaves its state, having been told to or not; and until when it may, once it was told to.
    bool leaving = false;
    absl::Duration leave_deadline = absl::InfiniteDuration();
  };

  // Keys of epoll events: the slot and what of it.
  enum Kind { kExit = 0, kChannel = 1, kKinds = 2 };

  void Post(std::function<void()> command);
  void Run();
  void RunCommands();
  void HandleEvent(uint64_t key, uint32_t events);
  absl::Duration NextDeadline() const;
  void KillOverdue();

  // All below run on the thread.
  void DoLaunch(const lasp::v1::Assignment& assignment);
  absl::Status StartRank(const lasp::v1::Assignment& assignment);
  void DrainRank(Rank* rank, absl::Duration grace, const std::string& reason);
  void KillRank(Rank* rank, const std::string& reason);
  // Has it write down where it is, and kills it then.
  void DumpRank(Rank* rank, const std::string& reason);
  // Has it leave its state and end.
  void LeaveRank(Rank* rank, absl::Duration grace, const std::string& reason, bool dump);
  void SendTo(Rank* rank, const lasp::internal::v1::ToRank& message);
  void Receive(Rank* rank);
  void HandleMessage(Rank* rank, const lasp::internal::v1::FromRank& message);
  void Reap(int slot);
  void Tell(lasp::v1::RankExited exited);
  const lasp::v1::RankExited* FindEnded(const lasp::v1::Fence& fence) const;
  Rank* Find(const lasp::v1::Fence& fence);
  void Watch(int descriptor, int slot, int kind, uint32_t events, bool modify = false);
  // The slot that it waits for, -1 where it does not.
  int FindWaiting(const lasp::v1::Fence& fence) const;
  // What waits for the slot, or for any, no longer does.
  std::optional<lasp::v1::Assignment> TakeWaiting(int slot);
  std::map<int, lasp::v1::Assignment> TakeAllWaiting();
  void UpdateView(int slot, const std::function<void(LiveRank*)>& change);

  const SupervisorOptions options_;
  const RankLedger* const ledger_;
  RankLogs* const logs_;
  RankObserver* const observer_;
  UniqueFd epoll_;
  UniqueFd wake_;
  std::atomic<bool> stopping_{false};

  // The thread's own: ranks by slot, the latest ends.
  std::map<int, std::unique_ptr<Rank>> ranks_;
  std::deque<lasp::v1::RankExited> ended_;
  LeftStates left_states_;

  mutable Mutex mutex_;
  mutable CondVar changed_;
  std::deque<std::function<void()>> commands_ GUARDED_BY(mutex_);
  std::map<int, LiveRank> views_ GUARDED_BY(mutex_);
  // Assignments that wait for the end of the rank in their slot. Changed on the thread alone.
  std::map<int, lasp::v1::Assignment> waiting_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace lasp::worker
