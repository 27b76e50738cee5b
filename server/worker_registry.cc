#include "server/worker_registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/proto_time.h"

namespace lasp::server {

void WorkerRecord::Register(const lasp::v1::Hello& hello, AgentSessionPtr new_session,
                            std::shared_ptr<Lease> lease, absl::Time now) {
  session = std::move(new_session);
  lease_ = std::move(lease);
  incarnation = hello.incarnation();
  host_name_ = hello.host_name();
  version_ = hello.version();
  protocol_version_ = CommonVersion(AgentProtocol(hello), kWorkerProtocol).value_or(0);
  TakeHostReport(hello);
  agent_draining = hello.draining();
  register_time_ = now;
  lost_ = false;
  lost_time = absl::InfiniteFuture();
  missed = false;
  expected_slots = {};
  std::vector<WorkerSlot> slots;
  slot_counts_ = {};
  for (const auto& slot : hello.slots()) {
    WorkerSlot& entry = slots.emplace_back();
    entry.index = slot.index();
    if (slot.kind() == lasp::v1::Slot::KIND_GPU) {
      entry.kind = lasp::v1::Slot::KIND_GPU;
      entry.gpu = std::make_shared<const lasp::v1::Gpu>(slot.gpu());
    }
    ++slot_counts_[entry.kind];
  }
  free_slots_ = slot_counts_;
  for (WorkerSlot& old : slots_) {
    const auto same = std::find_if(slots.begin(), slots.end(), [&old](const WorkerSlot& slot) {
      return slot.index == old.index;
    });
    if (same != slots.end() && old.holder.has_value()) {
      same->holder = std::move(old.holder);
      --free_slots_[same->kind];
    }
  }
  slots_ = std::move(slots);
}

void WorkerRecord::TakeHostReport(const lasp::v1::Hello& hello) {
  constexpr int kMaxProblems = 64;
  constexpr size_t kMaxTextBytes = 512;
  host_report_.Clear();
  if (hello.gpu_driver_version().size() <= kMaxTextBytes) {
    host_report_.set_gpu_driver_version(hello.gpu_driver_version());
  }
  for (const std::string& problem : hello.gpu_problems()) {
    if (problem.size() <= kMaxTextBytes && host_report_.gpu_problems_size() < kMaxProblems) {
      host_report_.add_gpu_problems(problem);
    }
  }
}

void WorkerRecord::Lose() {
  lost_ = true;
  session = nullptr;
  expected_slots = {};
  ReleaseAll();
}

PerKind<int> WorkerRecord::known_slots() const {
  return {.cpu = std::max(slot_counts_.cpu, expected_slots.cpu),
          .gpu = std::max(slot_counts_.gpu, expected_slots.gpu)};
}

int WorkerRecord::Claim(SlotKind kind, SlotHolder holder) {
  const auto slot = std::find_if(slots_.begin(), slots_.end(), [kind](const WorkerSlot& s) {
    return s.kind == kind && !s.holder.has_value();
  });
  slot->holder = std::move(holder);
  --free_slots_[kind];
  return slot->index;
}

void WorkerRecord::Occupy(int slot_index, SlotHolder holder) {
  auto slot = std::find_if(slots_.begin(), slots_.end(),
                           [slot_index](const WorkerSlot& s) { return s.index == slot_index; });
  if (slot == slots_.end()) {
    slots_.push_back({.index = slot_index});
    ++slot_counts_.cpu;
    ++free_slots_.cpu;
    slot = std::prev(slots_.end());
  }
  if (!slot->holder.has_value()) {
    --free_slots_[slot->kind];
  }
  slot->holder = std::move(holder);
}

const WorkerSlot* WorkerRecord::FindSlot(int slot_index) const {
  const auto slot = std::find_if(slots_.begin(), slots_.end(), [slot_index](const WorkerSlot& s) {
    return s.index == slot_index;
  });
  return slot == slots_.end() ? nullptr : &*slot;
}

WorkerSlot* WorkerRecord::FindHolder(const lasp::v1::Fence& fence) {
  for (WorkerSlot& slot : slots_) {
    if (slot.holder.has_value() && slot.holder->Is(fence)) {
      return &slot;
    }
  }
  return nullptr;
}

bool WorkerRecord::Release(const lasp::v1::Fence& fence) {
  WorkerSlot* slot = FindHolder(fence);
  if (slot == nullptr) {
    return false;
  }
  slot->holder.reset();
  ++free_slots_[slot->kind];
  return true;
}

void WorkerRecord::ReleaseAll() {
  for (WorkerSlot& slot : slots_) {
    slot.holder.reset();
  }
  free_slots_ = slot_counts_;
}

lasp::v1::Worker::State WorkerRecord::state() const {
  if (lost_) {
    return lasp::v1::Worker::STATE_LOST;
  }
  if (!draining()) {
    return lasp::v1::Worker::STATE_READY;
  }
  return free_slots_ == slot_counts_ ? lasp::v1::Worker::STATE_DRAINED
                                     : lasp::v1::Worker::STATE_DRAINING;
}

std::string WorkerRecord::Describe() const {
  return absl::StrCat("host ", host_name_, ", version ", version_, ", ", slot_counts_.cpu,
                      " CPU and ", slot_counts_.gpu, " GPU slots");
}

WorkerViewPtr WorkerRecord::MakeView() const {
  auto view = std::make_shared<WorkerView>();
  lasp::v1::Worker& worker = view->worker;
  worker.set_name(absl::StrCat("workers/", id_));
  worker.set_state(state());
  view->left = left();
  if (missed) {
    view->missed_since = lost_time;
  }
  worker.set_host_name(host_name_);
  worker.set_version(version_);
  worker.set_incarnation(incarnation);
  const PerKind<int> known = known_slots();
  worker.set_slot_count(known.cpu + known.gpu);
  for (const WorkerSlot& slot : slots_) {
    auto* proto = worker.add_slots();
    proto->set_index(slot.index);
    proto->set_kind(slot.kind);
    if (slot.gpu != nullptr) {
      *proto->mutable_gpu() = *slot.gpu;
    }
    if (slot.holder.has_value()) {
      proto->set_training_job(slot.holder->job_name);
      proto->set_generation(slot.holder->generation);
      proto->set_rank(slot.holder->rank);
    }
  }
  worker.set_recent_failure_count(static_cast<int32_t>(failures.size()));
  if (quarantine_end != absl::InfinitePast()) {
    *worker.mutable_quarantine_end_time() = ToProtoTime(quarantine_end);
  }
  if (register_time_ != absl::InfinitePast()) {
    *worker.mutable_register_time() = ToProtoTime(register_time_);
  }
  if (host_report_.ByteSizeLong() > 0) {
    *worker.mutable_host_report() = host_report_;
  }
  worker.set_protocol_version(protocol_version_);
  view->lease = lease_;
  return view;
}

WorkerRecord* WorkerRegistry::Find(const std::string& worker_id) {
  const auto found = workers_.find(worker_id);
  return found == workers_.end() ? nullptr : found->second.get();
}

WorkerRecord* WorkerRegistry::FindOrAdd(const std::string& worker_id) {
  std::unique_ptr<WorkerRecord>& worker = workers_[worker_id];
  if (worker == nullptr) {
    if (free_numbers_.empty()) {
      free_numbers_.push_back(static_cast<int>(by_number_.size()));
      by_number_.push_back(nullptr);
    }
    const int number = free_numbers_.back();
    free_numbers_.pop_back();
    worker = std::make_unique<WorkerRecord>(worker_id, number);
    by_number_[static_cast<size_t>(number)] = worker.get();
  }
  return worker.get();
}

void WorkerRegistry::Remove(const std::string& worker_id) {
  const auto found = workers_.find(worker_id);
  if (found == workers_.end()) {
    return;
  }
  Recount();
  const WorkerRecord& worker = *found->second;
  for (const SlotKind kind : kSlotKinds) {
    capacity_[kind] -= worker.counted_capacity_[kind];
    slots_[kind].Set(worker.number(), 0);
  }
  by_number_[static_cast<size_t>(worker.number())] = nullptr;
  free_numbers_.push_back(worker.number());
  workers_.erase(found);
}

void WorkerRegistry::Touch(WorkerRecord* worker) {
  if (!std::exchange(worker->touched_, true)) {
    touched_.push_back(worker);
  }
}

PerKind<int> WorkerRegistry::Capacity() {
  Recount();
  return capacity_;
}

SlotIndex& WorkerRegistry::Slots(SlotKind kind) {
  Recount();
  return slots_[kind];
}

void WorkerRegistry::Recount() {
  for (WorkerRecord* worker : touched_) {
    worker->touched_ = false;
    PerKind<int> capacity;
    if (worker->lost()) {
      capacity = worker->expected_slots;
    } else if (!worker->draining()) {
      capacity = worker->slot_counts_;
    }
    for (const SlotKind kind : kSlotKinds) {
      capacity_[kind] += capacity[kind] - worker->counted_capacity_[kind];
      slots_[kind].Set(worker->number(), worker->schedulable() ? worker->free_slots(kind) : 0);
    }
    worker->counted_capacity_ = capacity;
  }
  touched_.clear();
}

}  // namespace lasp::server
