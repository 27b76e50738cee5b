#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {
namespace {

// Elements: parts of bf16 begin where vector loads and matrix products want them.
constexpr int64_t kPartAlignment = 64;
// A strategy that goes lets what it has issued end first; after a failure that is at once.
constexpr absl::Duration kLastWait = absl::Seconds(10);

class Zero final : public DataParallel {
 public:
  Zero(const DataParallelOptions& options, ZeroStages stages, Arena& arena)
      : backend_(*options.backend),
        shares_out_(std::any_of(options.units.begin(), options.units.end(),
                                [](const ParameterUnit& unit) { return unit.shared_out; })),
        owners_(options.shards == nullptr || shares_out_ ? *options.world : *options.shards),
        replicas_(shares_out_ ? nullptr : options.replicas),
        stages_(stages) {
    CutUnits(options);
    TakeMemory(arena);
    FindOwned();
  }

  ~Zero() override {
    for (Operation& last : last_) {
      last.Wait(kLastWait).IgnoreError();
    }
  }

  Zero(const Zero&) = delete;
  Zero& operator=(const Zero&) = delete;

  Tensor masters() const override { return masters_; }

  const std::vector<OwnedRange>& owned() const override { return owned_; }

  bool replicates() const override { return false; }

  Tensor weights(int64_t unit) const override { return Unpadded(unit, at(unit).weights); }

  Tensor gradients(int64_t unit) const override { return Unpadded(unit, at(unit).gradients); }

  bool keeps_sums() const override { return !stages_.shards_gradients; }

  void BeginStep() override {
    for (Unit& unit : units_) {
      unit.has_sum = false;
    }
  }

  absl::Status UseWeights(int64_t unit, int64_t next) override {
    if (stages_.shards_weights) {
      LASP_RETURN_IF_ERROR(Gather(unit));
    }
    LASP_RETURN_IF_ERROR(WaitFor(&at(unit).gathered));
    // What used the slot before has been issued: the gather comes after it.
    const bool brings = stages_.shards_weights && next != kNoUnit;
    return brings && at(next).slot != at(unit).slot ? Gather(next) : absl::OkStatus();
  }

  absl::Status UseGradients(int64_t unit) override {
    return stages_.shards_gradients ? WaitFor(&slots_[at(unit).slot].scattered) : absl::OkStatus();
  }

  void GradientsDone(int64_t index, bool last) override {
    Unit& unit = at(index);
    if (!stages_.shards_gradients) {
      if (last) {
        LastOf(unit) = unit.group->ReduceScatterSum(unit.gradients, PartOf(unit, unit.gradients));
      }
      return;
    }
    const Tensor sum = Local(unit, gradient_shard_);
    if (!unit.has_sum) {
      LastOf(unit) = unit.group->ReduceScatterSum(unit.gradients, sum);
      unit.has_sum = true;
    } else {
      const Tensor addend = PartOf(unit, unit.gradients);
      unit.group->ReduceScatterSum(unit.gradients, addend);
      LastOf(unit) = unit.group->Run([this, addend, sum] {
        backend_.Axpy(1, addend, sum);
        return absl::OkStatus();
      });
    }
    slots_[unit.slot].scattered = LastOf(unit);
  }

  // Operations of a group run in order and fail for good: the last one speaks for all.
  absl::Status Finish() override {
    for (Operation& last : last_) {
      LASP_RETURN_IF_ERROR(WaitFor(&last));
    }
    Operation summed;
    if (replicas_ != nullptr && stages_.shards_gradients) {
      summed = replicas_->AllReduceSum(gradient_shard_);
    } else if (replicas_ != nullptr) {
      for (const Unit& unit : units_) {
        summed = replicas_->AllReduceSum(PartOf(unit, unit.gradients));
      }
    }
    return WaitFor(&summed);
  }

  absl::Status SpreadWeights() override {
    for (Slot& slot : slots_) {
      LASP_RETURN_IF_ERROR(Vacate(&slot));
    }
    for (Unit& unit : units_) {
      if (!stages_.shards_weights) {
        LastOf(unit) = unit.gathered = unit.group->AllGather(Source(unit), unit.weights);
      }
    }
    return absl::OkStatus();
  }

  absl::Status SumOverOwners(Tensor values) override { return owners_.AllReduceSum(values).Wait(); }

 private:
  struct Unit {
    ParameterUnit range;
    Communicator* group = nullptr;  // among whose ranks it is cut
    size_t slot = 0;
    int64_t part = 0;   // elements of a rank's, padding included
    int64_t local = 0;  // where this rank's begins in its shard
    int64_t whole = 0;  // and where the whole unit begins among all
    Tensor weights;     // [1, size * part]
    Tensor gradients;   // likewise
    // Of the gradient shard: this step has written it.
    bool has_sum = false;
    Operation gathered;

    int64_t padded() const { return group->size() * part; }
  };

  struct Slot {
    int64_t padded = 0;  // the largest
    int64_t holds = kNoUnit;
    Operation scattered;
  };

  Unit& at(int64_t unit) { return units_[static_cast<size_t>(unit)]; }

  const Unit& at(int64_t unit) const { return units_[static_cast<size_t>(unit)]; }

  void CutUnits(const DataParallelOptions& options) {
    units_.reserve(options.units.size());
    for (const ParameterUnit& range : options.units) {
      Communicator* const group = range.shared_out ? options.replicas : &owners_;
      const int64_t share = (range.count + group->size() - 1) / group->size();
      const int64_t part = (share + kPartAlignment - 1) / kPartAlignment * kPartAlignment;
      const auto slot = static_cast<size_t>(range.slot);
      slots_.resize(std::max(slots_.size(), slot + 1));
      units_.push_back({.range = range,
                        .group = group,
                        .slot = slot,
                        .part = part,
                        .local = shard_count_,
                        .whole = whole_count_,
                        .weights = {},
                        .gradients = {},
                        .gathered = {}});
      slots_[slot].padded = std::max(slots_[slot].padded, units_.back().padded());
      shard_count_ += part;
      whole_count_ += units_.back().padded();
    }
  }

  void TakeMemory(Arena& arena) {
    const DType accumulation = backend_.accumulation_type();
    const DType activation = backend_.activation_type();
    masters_ = arena.Take(MemoryUse::kWeights, accumulation, 1, shard_count_);
    weight_shard_ = masters_;
    if (stages_.shards_weights && activation != accumulation) {
      weight_shard_ = arena.Take(MemoryUse::kWeights, activation, 1, shard_count_);
    }
    Place(MemoryUse::kWeights, activation, stages_.shards_weights, &Unit::weights, arena);
    if (stages_.shards_gradients) {
      gradient_shard_ = arena.Take(MemoryUse::kGradients, accumulation, 1, shard_count_);
    }
    Place(MemoryUse::kGradients, accumulation, stages_.shards_gradients, &Unit::gradients, arena);
  }

  // Memory for whole units: one for each, or one for each slot.
  void Place(MemoryUse use, DType type, bool by_slot, Tensor Unit::* member, Arena& arena) {
    if (!by_slot) {
      const Tensor flat = arena.Take(use, type, 1, whole_count_);
      for (Unit& unit : units_) {
        unit.*member = Piece(flat, unit.whole, unit.padded());
      }
      return;
    }
    for (size_t slot = 0; slot < slots_.size(); ++slot) {
      const Tensor memory = arena.Take(use, type, 1, slots_[slot].padded);
      for (Unit& unit : units_) {
        if (unit.slot == slot) {
          unit.*member = Piece(memory, 0, unit.padded());
        }
      }
    }
  }

  void FindOwned() {
    for (const Unit& unit : units_) {
      const int64_t begin = unit.group->rank() * unit.part;
      const int64_t count = std::min(unit.part, unit.range.count - begin);
      if (count <= 0) {
        continue;
      }
      const Tensor gradient =
          stages_.shards_gradients ? Local(unit, gradient_shard_) : PartOf(unit, unit.gradients);
      owned_.push_back({.share = {unit.range.begin + begin, count, unit.local},
                        .weight = Piece(Source(unit), 0, count),
                        .gradient = Piece(gradient, 0, count)});
    }
  }

  static Tensor Piece(Tensor flat, int64_t begin, int64_t count) {
    return flat.Columns(begin, count).Reshape(1, count);
  }

  Tensor Unpadded(int64_t unit, Tensor whole) const {
    return Piece(whole, 0, at(unit).range.count);
  }

  // This rank's part of a whole unit.
  static Tensor PartOf(const Unit& unit, Tensor whole) {
    return Piece(whole, unit.group->rank() * unit.part, unit.part);
  }

  // What was issued last on the unit's group.
  Operation& LastOf(const Unit& unit) { return last_[unit.range.shared_out ? 1 : 0]; }

  static Tensor Local(const Unit& unit, Tensor shard) {
    return Piece(shard, unit.local, unit.part);
  }

  // Where a unit's weights are gathered from: where the update leaves them.
  Tensor Source(const Unit& unit) const {
    const bool in_place =
        !stages_.shards_weights && backend_.activation_type() != backend_.accumulation_type();
    return in_place ? PartOf(unit, unit.weights) : Local(unit, weight_shard_);
  }

  absl::Status Gather(int64_t index) {
    Unit& unit = at(index);
    Slot& slot = slots_[unit.slot];
    if (slot.holds == index) {
      return absl::OkStatus();
    }
    LASP_RETURN_IF_ERROR(Vacate(&slot));
    // In place: a communicator that copies from GPU to GPU then needs no kernel of its own.
    const Tensor own = PartOf(unit, unit.weights);
    backend_.Convert(Source(unit), own);
    LastOf(unit) = unit.gathered = unit.group->AllGather(own, unit.weights);
    slot.holds = index;
    return absl::OkStatus();
  }

  // Weights that were brought and never used may still be on their way.
  absl::Status Vacate(Slot* slot) {
    const int64_t held = std::exchange(slot->holds, kNoUnit);
    return held == kNoUnit ? absl::OkStatus() : WaitFor(&at(held).gathered);
  }

  // What the training waits for here is not its own computation's.
  absl::Status WaitFor(Operation* operation) {
    const Phase phase = backend_.EnterPhase(Phase::kGradientSync);
    absl::Status status = std::exchange(*operation, {}).Wait();
    backend_.EnterPhase(phase);
    return status;
  }

  Backend& backend_;
  // Whether what is shared out in an SP group is cut among its replicas.
  const bool shares_out_;
  // Among whom everything else is cut, and who own all together.
  Communicator& owners_;
  Communicator* const replicas_;  // null: there are none
  const ZeroStages stages_;
  std::vector<Unit> units_;
  std::vector<Slot> slots_;
  int64_t shard_count_ = 0;
  int64_t whole_count_ = 0;
  Tensor masters_;
  Tensor weight_shard_;    // the masters, or their copy, where each rank has but its own
  Tensor gradient_shard_;  // likewise, of sums
  std::vector<OwnedRange> owned_;
  // Issued last, by the group that it was issued on.
  Operation last_[2];
};

}  // namespace

std::unique_ptr<DataParallel> CreateZero(const DataParallelOptions& options, ZeroStages stages,
                                         Arena& arena) {
  return std::make_unique<Zero>(options, stages, arena);
}

}  // namespace lasp::worker
