#include "worker/checkpoint/restore.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/checkpoint/checkpoint_reader.h"
#include "proto/checkpoint/manifest.h"
#include "proto/rpc/status_macros.h"
#include "worker/checkpoint/shared_reading.h"

namespace lasp::worker {
namespace {

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
  // The digest also covers fields of a later release, which this one does not read in a manifest;
  // but it is of the defaults that the spec had when it was written.
  if (manifest.spec_digest() != SpecDigest(options.spec) &&
      !SameTraining(manifest.spec(), options.spec)) {
    return absl::FailedPreconditionError(
        absl::StrCat("checkpoint ", options.reference.folder(),
                     " is of another spec: its model, data, optimizer, batch or seed differs"));
  }
  return absl::OkStatus();
}

SharedReading ReadingOf(const RestoreOptions& options) {
  return {.what = absl::StrCat("restore checkpoint ", options.reference.folder()),
          .layout = options.layout,
          .backend = options.backend,
          .world = options.world,
          .owned = options.owned,
          .give_up = options.give_up,
          .on_block = options.on_block};
}

absl::StatusOr<lasp::v1::TrainingState> ReadParts(const RestoreOptions& options) {
  LASP_ASSIGN_OR_RETURN(CheckpointReader reader,
                        CheckpointReader::Open(options.root, options.reference));
  LASP_RETURN_IF_ERROR(CheckModel(reader.manifest(), options));
  for (size_t part = 0; part < options.tensors.size(); ++part) {
    LASP_RETURN_IF_ERROR(ReadShare(
        ReadingOf(options),
        [&](const Parameter& parameter, int64_t begin, int64_t count, float* to) {
          return reader.Read(absl::StrCat(kPartPrefixes[part], parameter.name), begin, count, to);
        },
        options.tensors[part]));
  }
  return reader.manifest().state();
}

}  // namespace

absl::StatusOr<lasp::v1::TrainingState> Restore(const RestoreOptions& options) {
  absl::StatusOr<lasp::v1::TrainingState> state = ReadParts(options);
  LASP_RETURN_IF_ERROR(ShareOut(ReadingOf(options), state.status(),
                                {options.tensors.begin(), options.tensors.end()}));
  return state;
}

}  // namespace lasp::worker
