#include "server/watch_encoder.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>

#include "lasp/v1/training_job_service.pb.h"

namespace lasp::server {
namespace {

using google::protobuf::internal::WireFormatLite;

// Appends a length-delimited field. Fields of a message may come in any order on the wire, so a
// message can be put together from parts that are serialised already.
void AppendField(int number, const std::string& value, std::string* bytes) {
  google::protobuf::io::StringOutputStream stream(bytes);
  google::protobuf::io::CodedOutputStream out(&stream);
  out.WriteTag(WireFormatLite::MakeTag(number, WireFormatLite::WIRETYPE_LENGTH_DELIMITED));
  out.WriteVarint32(static_cast<uint32_t>(value.size()));
  out.WriteString(value);
}

grpc::ByteBuffer ToBuffer(const grpc::Slice& bytes) { return {&bytes, 1}; }

}  // namespace

grpc::ByteBuffer WatchEncoder::Change(const JobChange& change) {
  const size_t place = static_cast<size_t>(change.revision) % kKept;
  {
    MutexLock lock(&mutex_);
    if (recent_[place].revision == change.revision) {
      return ToBuffer(recent_[place].bytes);
    }
  }
  const grpc::Slice bytes(Encode(change));
  MutexLock lock(&mutex_);
  recent_[place] = {.revision = change.revision, .bytes = bytes};
  return ToBuffer(bytes);
}

grpc::ByteBuffer WatchEncoder::Bookmark(bool snapshot_end, const std::string& resume_token) {
  v1::WatchTrainingJobsResponse event;
  event.mutable_bookmark()->set_snapshot_end(snapshot_end);
  event.set_resume_token(resume_token);
  return ToBuffer(grpc::Slice(event.SerializeAsString()));
}

// What JobView::ToProto gives, without parsing the spec only to serialise it again.
std::string WatchEncoder::Encode(const JobChange& change) const {
  v1::WatchTrainingJobsResponse event;
  event.set_resume_token(hub_->ResumeToken(change.revision));
  if (change.job == nullptr) {
    event.set_deleted_name(change.deleted_name);
    return event.SerializeAsString();
  }
  std::string job = change.job->job.SerializeAsString();
  if (change.job->spec != nullptr) {
    AppendField(v1::TrainingJob::kSpecFieldNumber, *change.job->spec, &job);
  }
  AppendField(v1::TrainingJob::kEtagFieldNumber, change.job->Etag(), &job);
  std::string bytes = event.SerializeAsString();
  AppendField(v1::WatchTrainingJobsResponse::kUpdatedFieldNumber, job, &bytes);
  return bytes;
}

}  // namespace lasp::server
