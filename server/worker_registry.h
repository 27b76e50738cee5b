// The agents and who holds which of their slots.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "lasp/v1/worker.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/protocol_range.h"
#include "server/agent_session.h"
#include "server/lease_table.h"
#include "server/slot_index.h"
#include "server/slot_kind.h"
#include "server/worker_catalog.h"

namespace lasp::server {

// The rank in a slot. A slot is held from the decision to start a rank until its agent has said
// that the process is gone, or is itself lost.
struct SlotHolder {
  std::string job_name;
  std::string uid;
  int64_t generation = 0;
  int rank = 0;
  // When it was last told to stop, of the monotonic clock.
  absl::Duration last_stop = -absl::InfiniteDuration();

  bool Is(const lasp::v1::Fence& fence) const {
    return uid == fence.uid() && generation == fence.generation() && rank == fence.rank();
  }
};

struct WorkerSlot {
  int index = 0;
  SlotKind kind = lasp::v1::Slot::KIND_CPU;
  std::optional<SlotHolder> holder = {};
  // As the agent describes it; null where it has none.
  std::shared_ptr<const lasp::v1::Gpu> gpu = {};
};

// One agent. The controller's thread only.
class WorkerRecord {
 public:
  // `number` is the registry's.
  WorkerRecord(std::string id, int number) : id_(std::move(id)), number_(number) {}

  const std::string& id() const { return id_; }

  // In the index of free slots.
  int number() const { return number_; }

  // Takes over what a Hello says of the agent itself; holders of slots that still exist stay.
  void Register(const lasp::v1::Hello& hello, AgentSessionPtr session, std::shared_ptr<Lease> lease,
                absl::Time now);
  // The lease has run out: nothing of it is left.
  void Lose();

  bool lost() const { return lost_; }

  bool connected() const { return session != nullptr; }

  // Whether ranks may be placed on it now.
  bool schedulable() const { return !lost_ && !draining() && connected(); }

  // Whether its agent's release knows what this version of the protocol brought.
  bool speaks(int protocol) const { return protocol_version_ >= protocol; }

  int protocol_version() const { return protocol_version_; }

  // Whether its ranks go on from what others left in memory.
  bool rebuilds() const { return protocol_version_ >= kRebuildProtocol; }

  // Whether it went as it should: drained.
  bool left() const { return lost_ && draining(); }

  bool draining() const { return drain_requested || agent_draining; }

  int free_slots(SlotKind kind) const { return free_slots_[kind]; }

  int slot_count(SlotKind kind) const { return slot_counts_[kind]; }

  // The slots it has or, while it is awaited, had.
  PerKind<int> known_slots() const;

  const std::vector<WorkerSlot>& slots() const { return slots_; }

  // Gives the lowest free slot of a kind to a rank: its index. There must be one.
  int Claim(SlotKind kind, SlotHolder holder);
  // What the agent says is in a slot; extends the slots where it names one that is new.
  void Occupy(int slot_index, SlotHolder holder);
  // Null where there is none of this index.
  const WorkerSlot* FindSlot(int slot_index) const;
  // The slot that the rank holds, null where none.
  WorkerSlot* FindHolder(const lasp::v1::Fence& fence);
  // True where the rank held a slot.
  bool Release(const lasp::v1::Fence& fence);
  // Empties all slots.
  void ReleaseAll();

  lasp::v1::Worker::State state() const;
  // `host H, version V, 4 CPU and 0 GPU slots`.
  std::string Describe() const;
  WorkerViewPtr MakeView() const;

  // --- set by the engine ---
  // Null while no stream is open.
  AgentSessionPtr session;
  std::string incarnation;
  // The operator's wish, and the agent's own (SIGTERM).
  bool drain_requested = false;
  bool agent_draining = false;
  // After a restart of the coordinator: slots that count as capacity until the agent is back.
  PerKind<int> expected_slots;
  absl::Time lost_time = absl::InfiniteFuture();
  // Was there before this process was, and has not come since.
  bool missed = false;
  // When ranks failed here in a way that speaks against the host, oldest first; those within the
  // window count.
  std::vector<absl::Time> failures;
  // While it is in quarantine; InfinitePast otherwise.
  absl::Time quarantine_end = absl::InfinitePast();
  // Of the last event about it.
  lasp::v1::Worker::State told_state = lasp::v1::Worker::STATE_UNSPECIFIED;

 private:
  friend class WorkerRegistry;

  // What is too long or too much of it is left out.
  void TakeHostReport(const lasp::v1::Hello& hello);

  const std::string id_;
  const int number_;
  // What the registry has counted of it, and whether that may have changed.
  PerKind<int> counted_capacity_;
  bool touched_ = false;
  bool lost_ = true;
  std::string host_name_;
  std::string version_;
  // That both speak.
  int protocol_version_ = 0;
  // What its Hello says of its GPUs.
  lasp::v1::HostReport host_report_;
  std::vector<WorkerSlot> slots_;
  // Of slots_.
  PerKind<int> slot_counts_;
  PerKind<int> free_slots_;
  absl::Time register_time_ = absl::InfinitePast();
  std::shared_ptr<Lease> lease_;
};

// All agents, by id. The controller's thread only.
class WorkerRegistry {
 public:
  // Null where there is none.
  WorkerRecord* Find(const std::string& worker_id);
  WorkerRecord* FindOrAdd(const std::string& worker_id);
  void Remove(const std::string& worker_id);

  // To be called after a worker has changed: all below counts what it has become.
  void Touch(WorkerRecord* worker);

  // Slots that would be there if nothing ran: of agents that take ranks or are expected back.
  PerKind<int> Capacity();

  // Slots of a kind that a rank could be started in now, by worker (WorkerRecord::number). What is
  // taken there stays taken until the worker is touched.
  SlotIndex& Slots(SlotKind kind);

  WorkerRecord* ByNumber(int number) const { return by_number_[static_cast<size_t>(number)]; }

  const std::map<std::string, std::unique_ptr<WorkerRecord>>& workers() const { return workers_; }

 private:
  // Counts the workers that have been touched.
  void Recount();

  std::map<std::string, std::unique_ptr<WorkerRecord>> workers_;
  // Null where a number is free.
  std::vector<WorkerRecord*> by_number_;
  std::vector<int> free_numbers_;
  std::vector<WorkerRecord*> touched_;
  PerKind<SlotIndex> slots_;
  PerKind<int> capacity_;
};

}  // namespace lasp::server
