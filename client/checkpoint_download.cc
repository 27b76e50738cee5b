#include "client/checkpoint_download.h"

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/span.h"
#include "client/event_stream.h"
#include "client/interrupt.h"
#include "client/number_text.h"
#include "client/own_disk.h"
#include "client/stream_retry.h"
#include "proto/checkpoint/extent_cover.h"
#include "proto/interchange/model_folder_writer.h"
#include "proto/interchange/model_tensors.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/softmax_support.h"

namespace lasp::client {
namespace {

using lasp::v1::ExportCheckpointResponse;
using lasp::v1::ExportedElements;
using lasp::v1::ExportedModel;

// The coordinator reads a few MiB a message, perhaps over a network file system.
constexpr absl::Duration kPatience = absl::Minutes(2);
constexpr absl::Duration kProgressInterval = absl::Milliseconds(200);

class Download {
 public:
  Download(const lasp::v1::Checkpoint& checkpoint, FolderReader reader,
           ModelFolderWriter::Options options, Session* session)
      : reader_(reader), options_(std::move(options)), session_(*session) {
    request_.set_name(checkpoint.name());
  }

  absl::StatusOr<ExportedFolder> Run() {
    LASP_ASSIGN_OR_RETURN(Connection* const connection, session_.Connect());
    const InterruptScope scope([] {});
    StreamRetry retry(&session_, connection);
    absl::Status status = absl::UnavailableError("");
    while (!status.ok()) {
      status = ReadStream(connection, &retry);
      session_.console().ClearProgress();
      if (!status.ok()) {
        LASP_RETURN_IF_ERROR(retry.BeforeNextTry(status));
      }
    }
    if (writer_ == nullptr) {
      return absl::InternalError("the coordinator sent an empty stream");
    }
    LASP_RETURN_IF_ERROR(OwnDiskError(writer_->Finish()));
    return ExportedFolder{.bytes = writer_->written_bytes(), .files = writer_->file_count()};
  }

 private:
  // UNAVAILABLE where another try is worth it.
  absl::Status ReadStream(Connection* connection, StreamRetry* retry) {
    EventStream<ExportCheckpointResponse> stream(
        [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
          return connection->checkpoints().PrepareAsyncExportCheckpoint(context, request_, queue);
        });
    while (true) {
      switch (stream.Next(kPatience)) {
        case StreamEvent::kTimeout:
          return absl::UnavailableError("the coordinator sends nothing any more");
        case StreamEvent::kEnd:
          return stream.status();
        case StreamEvent::kMessage:
          break;
      }
      retry->Heard();
      LASP_RETURN_IF_ERROR(stream.message().has_head() ? TakeHead(stream.message().head())
                                                       : TakeElements(stream.message().elements()));
    }
  }

  absl::Status TakeHead(const ExportedModel& head) {
    if (writer_ != nullptr) {
      return head.checkpoint().manifest_digest() == head_.checkpoint().manifest_digest()
                 ? absl::OkStatus()
                 : absl::AbortedError(absl::StrCat(
                       request_.name(), " has been written anew meanwhile: export it again"));
    }
    if (SoftmaxLayers(head.model()) > 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          request_.name(), ": spec.model.layer_pattern is ", head.model().layer_pattern(),
          ", and folders, lasp sample and lasp evaluate know models of linear attention alone: "
          "train with layer_pattern L"));
    }
    if (reader_ == FolderReader::kAnyone && !HasHuggingFaceLayout(head.model())) {
      return absl::FailedPreconditionError(
          absl::StrCat(request_.name(), ": spec.model.architecture is ",
                       lasp::v1::ModelSpec::Architecture_Name(head.model().architecture()),
                       ", and Hugging Face's layout is of TRANSNORMER: lasp sample and lasp "
                       "evaluate compute with "
                       "the checkpoint as it is"));
    }
    head_ = head;
    for (const lasp::v1::CheckpointTensor& tensor : head.tensors()) {
      LASP_ASSIGN_OR_RETURN(const int64_t count, ElementCount(tensor));
      total_ += count;
    }
    options_.model = head.model();
    auto writer = ModelFolderWriter::Create(options_);
    LASP_RETURN_IF_ERROR(OwnDiskError(writer.status()));
    writer_ = *std::move(writer);
    return absl::OkStatus();
  }

  absl::Status TakeElements(const ExportedElements& part) {
    if (writer_ == nullptr || part.tensor() < 0 || part.tensor() >= head_.tensors_size() ||
        part.data().size() % sizeof(float) != 0) {
      return absl::InternalError("the coordinator sent elements of no tensor");
    }
    values_.resize(part.data().size() / sizeof(float));
    std::memcpy(values_.data(), part.data().data(), part.data().size());
    LASP_RETURN_IF_ERROR(
        OwnDiskError(writer_->Add(head_.tensors(part.tensor()).name(), part.begin(), values_)));
    const auto count = static_cast<int64_t>(values_.size());
    request_.set_first_tensor(part.tensor());
    request_.set_first_element(part.begin() + count);
    done_ += count;
    ShowProgress();
    return absl::OkStatus();
  }

  void ShowProgress() {
    const absl::Time now = absl::Now();
    if (now < next_progress_) {
      return;
    }
    next_progress_ = now + kProgressInterval;
    const double bytes = static_cast<double>(writer_->written_bytes());
    session_.console().DrawProgress(absl::StrCat("exporting step ", head_.checkpoint().step(), ": ",
                                                 FormatPercent(done_, total_), ", ",
                                                 FormatRate(bytes), " bytes"));
  }

  const FolderReader reader_;
  ModelFolderWriter::Options options_;
  Session& session_;
  lasp::v1::ExportCheckpointRequest request_;
  ExportedModel head_;
  std::unique_ptr<ModelFolderWriter> writer_;
  std::vector<float> values_;
  int64_t done_ = 0;
  int64_t total_ = 0;
  absl::Time next_progress_ = absl::InfinitePast();
};

}  // namespace

absl::StatusOr<ExportedFolder> DownloadCheckpoint(const lasp::v1::Checkpoint& checkpoint,
                                                  const std::string& folder, FolderReader reader,
                                                  ElementType type, int64_t max_file_bytes,
                                                  Session* session) {
  // Before any byte leaves the coordinator, who keeps account of that.
  LASP_RETURN_IF_ERROR(ModelFolderWriter::CheckFree(folder));
  return Download(checkpoint, reader,
                  {.folder = folder, .model = {}, .type = type, .max_file_bytes = max_file_bytes},
                  session)
      .Run();
}

}  // namespace lasp::client
