#include "worker/checkpoint/restore.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/checkpoint/manifest.h"
#include "proto/rpc/status_macros.h"
#include "worker/checkpoint/checkpoint_reader.h"

namespace lasp::worker {
namespace {

// 16 MiB on their way from the disk to the device.
constexpr int64_t kElementsAtATime = int64_t{4} << 20;
// 64 MiB from one rank to the others.
constexpr int64_t kElementsAtOnce = int64_t{16} << 20;

std::string Describe(const lasp::v1::CheckpointTensor& tensor) {
  return absl::StrCat(tensor.dtype(), " [", absl::StrJoin(tensor.shape(), ", "), "]");
}

bool SameKind(const lasp::v1::CheckpointTensor& a, const lasp::v1::CheckpointTensor& b) {
  return a.dtype() == b.dtype() &&
         std::equal(a.shape().begin(), a.shape().end(), b.shape().begin(), b.shape().end());
}

absl::Status CheckModel(const lasp::v1::CheckpointManifest& manifest,
                        const RestoreOptions& options) {
  const auto mismatch = [&options](absl::string_view what) {
    return absl::FailedPreconditionError(
        absl::StrCat("checkpoint ", options.reference.folder(), " is of another model: ", what));
  };
  std::map<std::string, const lasp::v1::CheckpointTensor*> held;
  for (const lasp::v1::CheckpointTensor& tensor : manifest.tensors()) {
    held[tensor.name()] = &tensor;
  }
  for (const lasp::v1::CheckpointTensor& wanted : CheckpointTensors(*options.layout)) {
    const auto found = held.find(wanted.name());
    if (found == held.end()) {
      return mismatch(absl::StrCat("it has no ", wanted.name()));
    }
    if (!SameKind(*found->second, wanted)) {
      return mismatch(absl::StrCat(wanted.name(), " is ", Describe(*found->second), ", not ",
                                   Describe(wanted)));
    }
    held.erase(found);
  }
  if (!held.empty()) {
    return mismatch(absl::StrCat("this one has no ", held.begin()->first));
  }
  if (manifest.spec_digest() != SpecDigest(options.spec)) {
    return absl::FailedPreconditionError(
        absl::StrCat("checkpoint ", options.reference.folder(),
                     " is of another spec: its model, data, optimizer, batch or seed differs"));
  }
  return absl::OkStatus();
}

// Elements of one part into the device's memory.
absl::Status ReadPart(const RestoreOptions& options, const char* prefix, TensorShare share,
                      Tensor destination, CheckpointReader* reader) {
  std::vector<float> buffer;
  for (const Parameter& parameter : options.layout->parameters()) {
    const int64_t end = std::min(share.begin + share.count, parameter.offset + parameter.count());
    int64_t begin = std::max(share.begin, parameter.offset);
    while (begin < end) {
      if (options.give_up()) {
        return absl::CancelledError("asked to leave while restoring a checkpoint");
      }
      const int64_t count = std::min(end - begin, kElementsAtATime);
      buffer.resize(static_cast<size_t>(count));
      LASP_RETURN_IF_ERROR(reader->Read(absl::StrCat(prefix, parameter.name),
                                        begin - parameter.offset, count, buffer.data()));
      options.backend->CopyFromHost(buffer.data(),
                                    destination.Columns(begin, count).Reshape(1, count));
      options.on_block();
      begin += count;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<lasp::v1::TrainingState> ReadShare(const RestoreOptions& options) {
  LASP_ASSIGN_OR_RETURN(CheckpointReader reader,
                        CheckpointReader::Open(options.root, options.reference));
  LASP_RETURN_IF_ERROR(CheckModel(reader.manifest(), options));
  const TensorShare share =
      ShareOf(options.layout->count(), options.world->size(), options.world->rank());
  for (size_t part = 0; part < options.tensors.size(); ++part) {
    LASP_RETURN_IF_ERROR(
        ReadPart(options, kPartPrefixes[part], share, options.tensors[part], &reader));
  }
  return reader.manifest().state();
}

// Nobody goes on, and nobody waits for the others' shares, unless all have theirs.
absl::Status Agree(const absl::Status& own, const RestoreOptions& options) {
  const int size = options.world->size();
  std::vector<double> failed(static_cast<size_t>(size), 0.0);
  failed[static_cast<size_t>(options.world->rank())] = own.ok() ? 0 : 1;
  LASP_ASSIGN_OR_RETURN(const auto memory,
                        options.backend->Allocate(size * static_cast<int64_t>(sizeof(double))));
  const Tensor flags{memory->data(), DType::kFloat64, 1, size, size};
  options.backend->CopyFromHost(failed.data(), flags);
  const absl::Status reduced = options.world->AllReduceSum(flags).Wait();
  LASP_RETURN_IF_ERROR(own);
  LASP_RETURN_IF_ERROR(reduced);
  options.backend->CopyToHost(flags, failed.data());
  LASP_RETURN_IF_ERROR(options.backend->Synchronize());
  const auto first =
      std::find_if(failed.begin(), failed.end(), [](double flag) { return flag > 0; });
  return first == failed.end() ? absl::OkStatus()
                               : absl::UnavailableError(absl::StrCat(
                                     "rank ", first - failed.begin(),
                                     " could not restore checkpoint ", options.reference.folder()));
}

absl::Status Exchange(const RestoreOptions& options) {
  Operation last;
  for (const Tensor& tensor : options.tensors) {
    for (int rank = 0; rank < options.world->size(); ++rank) {
      const TensorShare share = ShareOf(options.layout->count(), options.world->size(), rank);
      // In pieces, so that who watches sees it come on over a slow network too.
      for (int64_t done = 0; done < share.count; done += kElementsAtOnce) {
        const int64_t count = std::min(share.count - done, kElementsAtOnce);
        last = options.world->Broadcast(tensor.Columns(share.begin + done, count).Reshape(1, count),
                                        rank);
      }
    }
  }
  // They run in order and fail for good: the last one speaks for all.
  LASP_RETURN_IF_ERROR(last.Wait());
  return options.backend->Synchronize();
}

}  // namespace

absl::StatusOr<lasp::v1::TrainingState> Restore(const RestoreOptions& options) {
  absl::StatusOr<lasp::v1::TrainingState> state = ReadShare(options);
  LASP_RETURN_IF_ERROR(Agree(state.status(), options));
  LASP_RETURN_IF_ERROR(Exchange(options));
  return state;
}

}  // namespace lasp::worker
