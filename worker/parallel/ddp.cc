#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {
namespace {

class Ddp : public DataParallel {
 public:
  Ddp(const DataParallelOptions& options, int64_t bucket_elements, Arena& arena)
      : world_(*options.world),
        units_(options.units),
        bucket_elements_(std::max<int64_t>(1, bucket_elements)) {
    const int64_t count = units_.back().begin + units_.back().count;
    const DType activation = options.backend->activation_type();
    const DType accumulation = options.backend->accumulation_type();
    masters_ = arena.Take(MemoryUse::kWeights, accumulation, 1, count);
    weights_ = activation == accumulation ? masters_
                                          : arena.Take(MemoryUse::kWeights, activation, 1, count);
    gradients_ = arena.Take(MemoryUse::kGradients, accumulation, 1, count);
    owned_ = {{.share = {.begin = 0, .count = count}, .weight = weights_, .gradient = gradients_}};
    issued_from_ = count;
  }

  Tensor masters() const override { return masters_; }

  const std::vector<OwnedRange>& owned() const override { return owned_; }

  bool replicates() const override { return true; }

  Tensor weights(int64_t unit) const override { return Of(unit, weights_); }

  Tensor gradients(int64_t unit) const override { return Of(unit, gradients_); }

  bool keeps_sums() const override { return true; }

  void GradientsDone(int64_t unit, bool last) override {
    if (!last) {
      return;
    }
    const int64_t final_from = units_[static_cast<size_t>(unit)].begin;
    while (issued_from_ > 0) {
      // Buckets begin at multiples of their size: memory that is aligned stays so.
      const int64_t begin = (issued_from_ - 1) / bucket_elements_ * bucket_elements_;
      if (begin < final_from) {
        return;
      }
      last_ = world_.AllReduceSum(
          gradients_.Columns(begin, issued_from_ - begin).Reshape(1, issued_from_ - begin));
      issued_from_ = begin;
    }
  }

  absl::Status Finish() override {
    issued_from_ = gradients_.count();
    // Operations run in order and fail for good: the last one speaks for all.
    return last_.Wait();
  }

 private:
  Tensor Of(int64_t unit, Tensor flat) const {
    const ParameterUnit& range = units_[static_cast<size_t>(unit)];
    return flat.Columns(range.begin, range.count).Reshape(1, range.count);
  }

  Communicator& world_;
  const std::vector<ParameterUnit> units_;
  const int64_t bucket_elements_;
  Tensor masters_;
  Tensor weights_;
  Tensor gradients_;
  std::vector<OwnedRange> owned_;
  // Gradients at and above this offset have been issued in this step.
  int64_t issued_from_ = 0;
  Operation last_;
};

}  // namespace

std::unique_ptr<DataParallel> CreateDdp(const DataParallelOptions& options, int64_t bucket_elements,
                                        Arena& arena) {
  return std::make_unique<Ddp>(options, bucket_elements, arena);
}

}  // namespace lasp::worker
