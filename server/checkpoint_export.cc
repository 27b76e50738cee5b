#include "server/checkpoint_export.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/checkpoint/extent_cover.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"

namespace lasp::server {
namespace {

// Each holds a block of 4 MiB, a message and a manifest.
constexpr int kMostExports = 8;
// 1 MiB a message.
constexpr int64_t kElementsAMessage = 256 << 10;

// What a checkpoint holds beside the parameters.
constexpr char kMomentPrefix[] = "optimizer.";

}  // namespace

absl::StatusOr<std::unique_ptr<ExportPlace>> ExportPlace::Take(Count count) {
  if (count->fetch_add(1) >= kMostExports) {
    count->fetch_sub(1);
    return ErrorWithReason(
        absl::StatusCode::kResourceExhausted,
        absl::StrCat(kMostExports, " exports are under way, as many as may be: try again later"),
        "TOO_MANY_EXPORTS");
  }
  return std::unique_ptr<ExportPlace>(new ExportPlace(std::move(count)));
}

CheckpointExport::CheckpointExport(OpenStreams* streams, TaskPool* pool,
                                   absl::Duration slow_reader_limit, ServerCore* core,
                                   std::string uid, v1::ExportCheckpointRequest request,
                                   std::unique_ptr<ExportPlace> place)
    : PullStream(streams, pool, slow_reader_limit),
      core_(core),
      uid_(std::move(uid)),
      request_(std::move(request)),
      place_(std::move(place)) {}

void CheckpointExport::Admit(absl::StatusOr<v1::Checkpoint> checkpoint) {
  {
    MutexLock lock(&admission_mutex_);
    admission_ = std::move(checkpoint);
  }
  Wake();
}

std::optional<absl::Status> CheckpointExport::Pull(
    std::vector<v1::ExportCheckpointResponse>* batch) {
  v1::ExportCheckpointResponse response;
  if (!reader_.has_value()) {
    {
      MutexLock lock(&admission_mutex_);
      if (!admission_.has_value()) {
        return std::nullopt;
      }
      if (!admission_->ok()) {
        return admission_->status();
      }
      checkpoint_ = **admission_;
    }
    if (const absl::Status begun = Begin(&response); !begun.ok()) {
      return Explain(begun);
    }
  } else {
    const absl::StatusOr<bool> more = ReadOn(&response);
    if (!more.ok()) {
      return Explain(more.status());
    }
    if (!*more) {
      return absl::OkStatus();
    }
  }
  batch->push_back(std::move(response));
  return std::nullopt;
}

absl::Status CheckpointExport::Begin(v1::ExportCheckpointResponse* response) {
  v1::CheckpointReference reference;
  reference.set_folder(checkpoint_.folder());
  reference.set_step(checkpoint_.step());
  reference.set_generation(checkpoint_.generation());
  reference.set_manifest_digest(checkpoint_.manifest_digest());
  LASP_ASSIGN_OR_RETURN(CheckpointReader reader,
                        CheckpointReader::Open(core_->checkpoint_root(), reference));
  for (const v1::CheckpointTensor& tensor : reader.manifest().tensors()) {
    if (!absl::StartsWith(tensor.name(), kMomentPrefix)) {
      tensors_.push_back(tensor);
    }
  }
  const auto first = static_cast<size_t>(request_.first_tensor());
  int64_t elements = 0;
  if (first < tensors_.size()) {
    LASP_ASSIGN_OR_RETURN(elements, ElementCount(tensors_[first]));
  }
  if (first > tensors_.size() || request_.first_element() > elements) {
    return InvalidFields({{"first_tensor", absl::StrCat("is behind the last of ", tensors_.size(),
                                                        " tensors, or first_element behind it")}},
                         "INVALID_REQUEST");
  }
  tensor_ = first;
  element_ = request_.first_element();
  v1::ExportedModel& head = *response->mutable_head();
  *head.mutable_checkpoint() = checkpoint_;
  *head.mutable_model() = reader.manifest().spec().model();
  *head.mutable_tensors() = {tensors_.begin(), tensors_.end()};
  reader_ = std::move(reader);
  return absl::OkStatus();
}

absl::StatusOr<bool> CheckpointExport::ReadOn(v1::ExportCheckpointResponse* response) {
  while (tensor_ < tensors_.size()) {
    LASP_ASSIGN_OR_RETURN(const int64_t elements, ElementCount(tensors_[tensor_]));
    if (element_ < elements) {
      const int64_t count = std::min(elements - element_, kElementsAMessage);
      v1::ExportedElements& part = *response->mutable_elements();
      part.set_tensor(static_cast<int>(tensor_));
      part.set_begin(element_);
      std::string& data = *part.mutable_data();
      data.resize(static_cast<size_t>(count) * sizeof(float));
      LASP_RETURN_IF_ERROR(reader_->Read(tensors_[tensor_].name(), element_, count, data.data()));
      element_ += count;
      return true;
    }
    ++tensor_;
    element_ = 0;
  }
  return false;
}

absl::Status CheckpointExport::Explain(const absl::Status& failure) const {
  if (absl::IsInvalidArgument(failure)) {
    return failure;
  }
  const CheckpointList list = core_->checkpoints().Find(uid_);
  const bool there = std::any_of(list->begin(), list->end(), [this](const auto& checkpoint) {
    return checkpoint.step() == checkpoint_.step() &&
           checkpoint.generation() == checkpoint_.generation() &&
           checkpoint.state() == v1::Checkpoint::STATE_COMMITTED;
  });
  if (!there) {
    return ErrorWithReason(absl::StatusCode::kAborted,
                           absl::StrCat(request_.name(),
                                        " was removed while it was exported: choose a newer one, "
                                        "or have the job keep more (checkpoint_retention)"),
                           "CHECKPOINT_REMOVED");
  }
  if (absl::IsDataLoss(failure)) {
    // Read back whole, it is marked, and no job begins from it.
    v1::VerifyCheckpointRequest request;
    request.set_name(request_.name());
    core_->controller().VerifyCheckpoint(request, {.principal = "coordinator", .role = ""},
                                         [](const absl::StatusOr<v1::Checkpoint>&) {});
  }
  return failure;
}

}  // namespace lasp::server
