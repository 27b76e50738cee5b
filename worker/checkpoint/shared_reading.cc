#include "worker/checkpoint/shared_reading.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "kernels/bf16_rounding.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

// 16 MiB on their way from the disk to the device.
constexpr int64_t kElementsAtATime = int64_t{4} << 20;
// 64 MiB from one rank to the others.
constexpr int64_t kElementsAtOnce = int64_t{16} << 20;

absl::Status Exchange(const SharedReading& reading, const std::vector<Tensor>& tensors) {
  Operation last;
  for (const Tensor& tensor : tensors) {
    for (int rank = 0; rank < reading.world->size(); ++rank) {
      const TensorShare share = ShareOf(reading.layout->count(), reading.world->size(), rank);
      // In pieces, so that who watches sees it come on over a slow network too.
      for (int64_t done = 0; done < share.count; done += kElementsAtOnce) {
        const int64_t count = std::min(share.count - done, kElementsAtOnce);
        last = reading.world->Broadcast(tensor.Columns(share.begin + done, count).Reshape(1, count),
                                        rank);
      }
    }
  }
  // They run in order and fail for good: the last one speaks for all.
  LASP_RETURN_IF_ERROR(last.Wait());
  return reading.backend->Synchronize();
}

void Store(const std::vector<float>& values, Tensor destination, Backend& backend) {
  if (destination.dtype != DType::kBFloat16) {
    backend.CopyFromHost(values.data(), destination);
    return;
  }
  std::vector<uint16_t> bits(values.size());
  std::transform(values.begin(), values.end(), bits.begin(), kernels::NearestBf16Bits);
  backend.CopyFromHost(bits.data(), destination);
}

absl::Status ReadOne(const SharedReading& reading, const ParameterReader& read, TensorShare share,
                     Tensor destination) {
  std::vector<float> buffer;
  for (const Parameter& parameter : reading.layout->parameters()) {
    const int64_t end = std::min(share.begin + share.count, parameter.offset + parameter.count());
    int64_t begin = std::max(share.begin, parameter.offset);
    while (begin < end) {
      if (reading.give_up()) {
        return absl::CancelledError(absl::StrCat("asked to leave; did not ", reading.what));
      }
      const int64_t count = std::min(end - begin, kElementsAtATime);
      buffer.resize(static_cast<size_t>(count));
      LASP_RETURN_IF_ERROR(read(parameter, begin - parameter.offset, count, buffer.data()));
      Store(buffer, destination.Columns(share.local + begin - share.begin, count).Reshape(1, count),
            *reading.backend);
      reading.on_block();
      begin += count;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadShare(const SharedReading& reading, const ParameterReader& read,
                       Tensor destination) {
  if (!reading.owned.has_value()) {
    return ReadOne(reading, read,
                   ShareOf(reading.layout->count(), reading.world->size(), reading.world->rank()),
                   destination);
  }
  for (const TensorShare& share : *reading.owned) {
    LASP_RETURN_IF_ERROR(ReadOne(reading, read, share, destination));
  }
  return absl::OkStatus();
}

absl::Status Agree(const SharedReading& reading, const absl::Status& own) {
  const int size = reading.world->size();
  std::vector<double> failed(static_cast<size_t>(size), 0.0);
  failed[static_cast<size_t>(reading.world->rank())] = own.ok() ? 0 : 1;
  LASP_ASSIGN_OR_RETURN(const auto memory,
                        reading.backend->Allocate(size * static_cast<int64_t>(sizeof(double))));
  const Tensor flags{memory->data(), DType::kFloat64, 1, size, size};
  reading.backend->CopyFromHost(failed.data(), flags);
  const absl::Status reduced = reading.world->AllReduceSum(flags).Wait();
  LASP_RETURN_IF_ERROR(own);
  LASP_RETURN_IF_ERROR(reduced);
  reading.backend->CopyToHost(flags, failed.data());
  LASP_RETURN_IF_ERROR(reading.backend->Synchronize());
  const auto first =
      std::find_if(failed.begin(), failed.end(), [](double flag) { return flag > 0; });
  return first == failed.end() ? absl::OkStatus()
                               : absl::UnavailableError(absl::StrCat(
                                     "rank ", first - failed.begin(), " could not ", reading.what));
}

absl::Status ShareOut(const SharedReading& reading, const absl::Status& own,
                      const std::vector<Tensor>& tensors) {
  // Nobody waits for the others' shares unless all have theirs.
  LASP_RETURN_IF_ERROR(Agree(reading, own));
  return reading.owned.has_value() ? reading.backend->Synchronize() : Exchange(reading, tensors);
}

}  // namespace lasp::worker
