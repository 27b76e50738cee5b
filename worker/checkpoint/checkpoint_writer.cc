#include "worker/checkpoint/checkpoint_writer.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/checkpoint/checkpoint_folder.h"
#include "proto/checkpoint/manifest.h"
#include "proto/checkpoint/safetensors_header.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "worker/checkpoint/checkpoint_folder.h"
#include "worker/checkpoint/shard_file.h"

namespace lasp::worker {

namespace {

constexpr absl::Duration kSnapshotTimeout = absl::Minutes(5);
// How soon a writer that waits for its copy notices that it is to end.
constexpr absl::Duration kStopInterval = absl::Milliseconds(200);

absl::Duration Now() { return SystemClock().Monotonic(); }

// Of one tensor's.
int64_t DataBytes(const std::vector<TensorShare>& shares, DType type) {
  int64_t count = 0;
  for (const TensorShare& share : shares) {
    count += share.count;
  }
  return count * SizeOf(type);
}

int64_t DataBytes(const std::vector<TensorShare>& shares, const TrainingTensors& tensors) {
  int64_t bytes = 0;
  for (const Tensor& tensor : tensors) {
    bytes += DataBytes(shares, tensor.dtype);
  }
  return bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Create(Options options) {
  LASP_RETURN_IF_ERROR(CheckFolderName(options.folder));
  for (const Tensor& tensor : options.tensors) {
    if (tensor.dtype != DType::kFloat32 && tensor.dtype != DType::kBFloat16) {
      return absl::InvalidArgumentError("checkpoints hold fp32, which this device does not train");
    }
  }
  std::vector<TensorShare> shares =
      options.saved.has_value()
          ? *options.saved
          : std::vector<TensorShare>{
                ShareOf(options.layout->count(), options.world_size, options.fence.rank())};
  std::vector<TensorShare> written = shares;
  if (options.staging != nullptr) {
    written.insert(written.end(), options.staging->shares().begin(),
                   options.staging->shares().end());
  }
  LASP_ASSIGN_OR_RETURN(auto snapshot,
                        options.backend->CreateSnapshot(DataBytes(written, options.tensors)));
  auto writer = std::unique_ptr<CheckpointWriter>(new CheckpointWriter(
      std::move(options), std::move(shares), std::move(written), std::move(snapshot)));
  writer->thread_ = std::thread([raw = writer.get()] { raw->Run(); });
  return writer;
}

CheckpointWriter::CheckpointWriter(Options options, std::vector<TensorShare> shares,
                                   std::vector<TensorShare> written,
                                   std::unique_ptr<HostSnapshot> snapshot)
    : options_(std::move(options)),
      shares_(std::move(shares)),
      written_(std::move(written)),
      snapshot_(std::move(snapshot)) {}

CheckpointWriter::~CheckpointWriter() {
  stopping_ = true;
  {
    MutexLock lock(&mutex_);
    changed_.NotifyAll();
  }
  thread_.join();
}

bool CheckpointWriter::busy() const {
  MutexLock lock(&mutex_);
  return job_.has_value();
}

int64_t CheckpointWriter::staging_bytes() const { return DataBytes(written_, options_.tensors); }

lasp::internal::v1::CheckpointTotals CheckpointWriter::totals() const {
  MutexLock lock(&mutex_);
  return totals_;
}

absl::Status CheckpointWriter::TakeSnapshot() {
  RowStaging* const staging = options_.staging;
  if (staging != nullptr) {
    LASP_RETURN_IF_ERROR(staging->Fill(options_.tensors));
  }
  std::vector<Tensor> sources;
  sources.reserve(options_.tensors.size() * written_.size());
  const auto add = [&sources](Tensor tensor, const std::vector<TensorShare>& shares) {
    for (const TensorShare& share : shares) {
      sources.push_back(tensor.Columns(share.local, share.count).Reshape(1, share.count));
    }
  };
  for (size_t part = 0; part < options_.tensors.size(); ++part) {
    add(options_.tensors[part], shares_);
    if (staging != nullptr) {
      add(staging->tensors()[part], staging->shares());
    }
  }
  return snapshot_->Take(sources);
}

void CheckpointWriter::Begin(const lasp::v1::TrainingState& state) {
  const absl::Duration began = Now();
  const absl::Status taken = TakeSnapshot();
  if (!taken.ok()) {
    Refuse(state, taken);
    return;
  }
  NoteProgress();
  MutexLock lock(&mutex_);
  job_ = state;
  began_ = began;
  changed_.NotifyAll();
}

void CheckpointWriter::Refuse(const lasp::v1::TrainingState& state, const absl::Status& why) {
  lasp::v1::ShardWritten report = Report(state.step());
  *report.mutable_status() = StatusToProto(why);
  Tell(report, Now());
}

void CheckpointWriter::NoteProgress() { came_on_ = absl::ToInt64Nanoseconds(Now()); }

bool CheckpointWriter::WaitUntilIdle(absl::Duration patience) {
  MutexLock lock(&mutex_);
  while (job_.has_value()) {
    const absl::Duration left = absl::Nanoseconds(came_on_.load()) + patience - Now();
    if (left <= absl::ZeroDuration()) {
      return false;
    }
    changed_.WaitWithTimeout(&mutex_, left);
  }
  return true;
}

lasp::v1::ShardWritten CheckpointWriter::Report(int64_t step) const {
  lasp::v1::ShardWritten report;
  *report.mutable_fence() = options_.fence;
  report.set_step(step);
  return report;
}

void CheckpointWriter::Tell(const lasp::v1::ShardWritten& shard, absl::Duration began) {
  const bool ok = shard.status().code() == 0;
  const absl::Duration took = Now() - began;
  {
    MutexLock lock(&mutex_);
    if (ok) {
      totals_.set_written(totals_.written() + 1);
      totals_.set_bytes(totals_.bytes() + shard.shard().size_bytes());
    } else {
      totals_.set_failed(totals_.failed() + 1);
    }
    totals_.set_write_seconds(totals_.write_seconds() + absl::ToDoubleSeconds(took));
  }
  if (ok) {
    LASP_LOG(kInfo, "checkpoint written",
             {{"step", shard.step()},
              {"bytes", shard.shard().size_bytes()},
              {"seconds", absl::ToDoubleSeconds(took)}});
  } else {
    LASP_LOG(kError, "this rank has no part in a checkpoint",
             {{"step", shard.step()}, {"error", shard.status().message()}});
  }
  options_.on_shard(shard);
}

void CheckpointWriter::Run() {
  while (true) {
    lasp::v1::TrainingState state;
    absl::Duration began;
    {
      MutexLock lock(&mutex_);
      while (!job_.has_value() && !stopping_) {
        changed_.Wait(&mutex_);
      }
      if (stopping_) {
        return;
      }
      state = *job_;
      began = began_;
    }
    const lasp::v1::ShardWritten written = Write(state);
    if (stopping_) {
      return;  // to nobody's use
    }
    Tell(written, began);
    MutexLock lock(&mutex_);
    job_.reset();
    changed_.NotifyAll();
  }
}

absl::Status CheckpointWriter::WaitForSnapshot() {
  const absl::Duration deadline = Now() + kSnapshotTimeout;
  absl::Status status = snapshot_->Wait(kStopInterval);
  while (absl::IsDeadlineExceeded(status) && Now() < deadline && !stopping_) {
    status = snapshot_->Wait(kStopInterval);
  }
  return status;
}

lasp::v1::ShardWritten CheckpointWriter::Write(const lasp::v1::TrainingState& state) {
  lasp::v1::ShardWritten report = Report(state.step());
  absl::Status status = WaitForSnapshot();
  NoteProgress();
  if (status.ok()) {
    absl::StatusOr<lasp::v1::CheckpointShard> shard = WriteShard(state.step());
    status = shard.status();
    if (shard.ok()) {
      *report.mutable_shard() = *std::move(shard);
    }
  }
  *report.mutable_status() = StatusToProto(status);
  if (status.ok() && options_.fence.rank() == 0) {
    for (lasp::v1::CheckpointTensor& tensor : CheckpointTensors(*options_.layout)) {
      *report.add_tensors() = std::move(tensor);
    }
    *report.mutable_state() = state;
  }
  return report;
}

absl::StatusOr<lasp::v1::CheckpointShard> CheckpointWriter::WriteShard(int64_t step) {
  const int64_t generation = options_.fence.generation();
  std::vector<lasp::v1::TensorExtent> extents = ExtentsOf(*options_.layout, written_);
  SafetensorsHeader header{.metadata = {{"format", "lasp"},
                                        {"step", absl::StrCat(step)},
                                        {"generation", absl::StrCat(generation)},
                                        {"rank", absl::StrCat(options_.fence.rank())}},
                           .tensors = {}};
  header.tensors.reserve(extents.size());
  for (const lasp::v1::TensorExtent& extent : extents) {
    header.tensors.push_back(
        {.name = absl::StrCat(extent.tensor(), "[", extent.begin(), ":",
                              extent.begin() + extent.count(), "]"),
         .dtype = "F32",
         .shape = {extent.count()},
         .begin = extent.offset_bytes(),
         .end = extent.offset_bytes() + extent.count() * static_cast<int64_t>(sizeof(float))});
  }
  const std::string head = PrintSafetensorsHeader(header);
  const std::string name = ShardFileName(options_.fence.rank());
  const std::string step_name = CheckpointFolderName(step, generation);
  const std::string path = absl::StrCat(options_.root, "/", options_.folder, "/", step_name);
  LASP_ASSIGN_OR_RETURN(const UniqueFd parent, MakeFolders(options_.root, options_.folder));
  LASP_ASSIGN_OR_RETURN(const UniqueFd folder, MakeFolder(parent, step_name, path));
  std::vector<ShardPiece> pieces = {{.data = head}};
  const char* data = snapshot_->data();
  for (const Tensor& tensor : options_.tensors) {
    const int64_t bytes = DataBytes(written_, tensor.dtype);
    pieces.push_back({.data = absl::string_view(data, static_cast<size_t>(bytes)),
                      .widens = tensor.dtype == DType::kBFloat16});
    data += bytes;
  }
  LASP_ASSIGN_OR_RETURN(lasp::v1::CheckpointShard shard,
                        WriteShardFile(folder, name, absl::StrCat(path, "/", name), pieces, [this] {
                          NoteProgress();
                          return !stopping_;
                        }));
  for (lasp::v1::TensorExtent& extent : extents) {
    extent.set_offset_bytes(extent.offset_bytes() + static_cast<int64_t>(head.size()));
    *shard.add_extents() = std::move(extent);
  }
  return shard;
}

}  // namespace lasp::worker
