#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {
namespace {

// Elements: what a rank speaks for begins where vector loads want it.
constexpr int64_t kPartAlignment = 64;

class Ddp : public DataParallel {
 public:
  Ddp(const DataParallelOptions& options, int64_t bucket_elements, Arena& arena)
      : world_(*options.world),
        shards_(options.shards),
        replicas_(options.replicas),
        units_(options.units) {
    const int64_t count = units_.back().begin + units_.back().count;
    const DType activation = options.backend->activation_type();
    const DType accumulation = options.backend->accumulation_type();
    masters_ = arena.Take(MemoryUse::kWeights, accumulation, 1, count);
    weights_ = activation == accumulation ? masters_
                                          : arena.Take(MemoryUse::kWeights, activation, 1, count);
    gradients_ = arena.Take(MemoryUse::kGradients, accumulation, 1, count);
    owned_ = {Range(0, count)};
    CutBuckets(std::max<int64_t>(1, bucket_elements));
  }

  Tensor masters() const override { return masters_; }

  const std::vector<OwnedRange>& owned() const override { return owned_; }

  bool replicates() const override { return !shares_out_; }

  bool owns_all() const override { return true; }

  const std::vector<OwnedRange>& counted() const override {
    return shares_out_ ? counted_ : owned_;
  }

  Tensor weights(int64_t unit) const override { return Of(unit, weights_); }

  Tensor gradients(int64_t unit) const override { return Of(unit, gradients_); }

  bool keeps_sums() const override { return true; }

  void GradientsDone(int64_t unit, bool last) override {
    if (!last) {
      return;
    }
    const int64_t final_from = units_[static_cast<size_t>(unit)].begin;
    while (left_ > 0 && buckets_[left_ - 1].begin >= final_from) {
      const Bucket& bucket = buckets_[--left_];
      const Tensor gradients = Piece(gradients_, bucket.begin, bucket.count);
      (bucket.shared_out ? last_of_replicas_ : last_of_world_) =
          (bucket.shared_out ? *replicas_ : world_).AllReduceSum(gradients);
    }
  }

  absl::Status Finish() override {
    left_ = buckets_.size();
    // Operations run in order and fail for good: the last one of a group speaks for all.
    LASP_RETURN_IF_ERROR(last_of_replicas_.Wait());
    return last_of_world_.Wait();
  }

  absl::Status SumOverOwners(Tensor values) override {
    return shares_out_ ? shards_->AllReduceSum(values).Wait() : absl::OkStatus();
  }

 private:
  struct Bucket {
    int64_t begin = 0;
    int64_t count = 0;
    bool shared_out = false;
  };

  // Buckets begin at multiples of their size, so that memory that is aligned stays so, and where
  // another group's elements begin.
  void CutBuckets(int64_t bucket_elements) {
    for (size_t first = 0; first < units_.size();) {
      const bool shared_out = units_[first].shared_out;
      const int64_t begin = units_[first].begin;
      while (first < units_.size() && units_[first].shared_out == shared_out) {
        ++first;
      }
      const int64_t end = units_[first - 1].begin + units_[first - 1].count;
      for (int64_t from = begin; from < end;) {
        const int64_t border = (from / bucket_elements + 1) * bucket_elements;
        const int64_t to = std::min(end, border);
        buckets_.push_back({.begin = from, .count = to - from, .shared_out = shared_out});
        from = to;
      }
      shares_out_ |= shared_out;
      SpeakFor(begin, end, shared_out);
    }
    left_ = buckets_.size();
  }

  // For what others of the group have, too, each speaks in part.
  void SpeakFor(int64_t begin, int64_t end, bool shared_out) {
    if (!shared_out && shards_ != nullptr) {
      const int64_t part = (end - begin + shards_->size() - 1) / shards_->size();
      const int64_t aligned = (part + kPartAlignment - 1) / kPartAlignment * kPartAlignment;
      begin = std::min(end, begin + aligned * shards_->rank());
      end = std::min(end, begin + aligned);
    }
    if (begin < end) {
      counted_.push_back(Range(begin, end - begin));
    }
  }

  OwnedRange Range(int64_t begin, int64_t count) const {
    return {.share = {.begin = begin, .count = count, .local = begin},
            .weight = Piece(weights_, begin, count),
            .gradient = Piece(gradients_, begin, count)};
  }

  static Tensor Piece(Tensor flat, int64_t begin, int64_t count) {
    return flat.Columns(begin, count).Reshape(1, count);
  }

  Tensor Of(int64_t unit, Tensor flat) const {
    const ParameterUnit& range = units_[static_cast<size_t>(unit)];
    return Piece(flat, range.begin, range.count);
  }

  Communicator& world_;
  Communicator* const shards_;
  Communicator* const replicas_;
  const std::vector<ParameterUnit> units_;
  Tensor masters_;
  Tensor weights_;
  Tensor gradients_;
  std::vector<OwnedRange> owned_;
  // Where something is shared out.
  bool shares_out_ = false;
  std::vector<OwnedRange> counted_;
  // Ascending; those from left_ on have been issued in this step.
  std::vector<Bucket> buckets_;
  size_t left_ = 0;
  Operation last_of_world_;
  Operation last_of_replicas_;
};

}  // namespace

std::unique_ptr<DataParallel> CreateDdp(const DataParallelOptions& options, int64_t bucket_elements,
                                        Arena& arena) {
  return std::make_unique<Ddp>(options, bucket_elements, arena);
}

}  // namespace lasp::worker
