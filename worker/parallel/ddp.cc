#include <algorithm>
#include <memory>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {
namespace {

class Ddp : public DataParallel {
 public:
  Ddp(Communicator* world, Tensor gradients, int64_t bucket_elements)
      : world_(*world),
        gradients_(gradients),
        bucket_elements_(std::max<int64_t>(1, bucket_elements)),
        issued_from_(gradients.count()) {}

  void GradientsFinalFrom(int64_t offset) override {
    while (issued_from_ > 0) {
      // Buckets begin at multiples of their size: memory that is aligned stays so.
      const int64_t begin = (issued_from_ - 1) / bucket_elements_ * bucket_elements_;
      if (begin < offset) {
        return;
      }
      last_ = world_.AllReduceSum(
          gradients_.Columns(begin, issued_from_ - begin).Reshape(1, issued_from_ - begin));
      issued_from_ = begin;
    }
  }

  absl::Status Finish() override {
    GradientsFinalFrom(0);
    issued_from_ = gradients_.count();
    // Operations run in order and fail for good: the last one speaks for all.
    return last_.Wait();
  }

 private:
  Communicator& world_;
  const Tensor gradients_;
  const int64_t bucket_elements_;
  // Gradients at and above this offset have been issued in this step.
  int64_t issued_from_;
  Operation last_;
};

}  // namespace

std::unique_ptr<DataParallel> CreateDdp(Communicator* world, Tensor gradients,
                                        int64_t bucket_elements) {
  return std::make_unique<Ddp>(world, gradients, bucket_elements);
}

}  // namespace lasp::worker
