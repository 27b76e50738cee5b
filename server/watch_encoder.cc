#include "server/watch_encoder.h"

#include "lasp/v1/training_job_service.pb.h"
#include "server/wire_field.h"

namespace lasp::server {
grpc::Slice WatchEncoder::Change(const JobChange& change) {
  const size_t place = static_cast<size_t>(change.revision) % kKept;
  {
    MutexLock lock(&mutex_);
    if (recent_[place].revision == change.revision) {
      return recent_[place].bytes;
    }
  }
  const grpc::Slice bytes(Encode(change));
  MutexLock lock(&mutex_);
  recent_[place] = {.revision = change.revision, .bytes = bytes};
  return bytes;
}

grpc::Slice WatchEncoder::Removal(const JobChange& change) const {
  v1::WatchTrainingJobsResponse event;
  event.set_removed_name(change.job->job.name());
  event.set_resume_token(hub_->ResumeToken(change.revision));
  return grpc::Slice(event.SerializeAsString());
}

grpc::Slice WatchEncoder::Bookmark(bool snapshot_end, const std::string& resume_token) {
  v1::WatchTrainingJobsResponse event;
  event.mutable_bookmark()->set_snapshot_end(snapshot_end);
  event.set_resume_token(resume_token);
  return grpc::Slice(event.SerializeAsString());
}

grpc::ByteBuffer WatchEncoder::Single(const grpc::Slice& event) { return {&event, 1}; }

grpc::ByteBuffer WatchEncoder::Batch(const std::vector<grpc::Slice>& events,
                                     const std::string& resume_token) {
  using Response = v1::WatchTrainingJobsResponse;
  std::vector<std::string> heads;
  size_t size = 0;
  for (const grpc::Slice& event : events) {
    heads.push_back(FieldHead(Response::Batch::kEventsFieldNumber, event.size()));
    size += heads.back().size() + event.size();
  }
  std::string outer;
  AppendField(Response::kResumeTokenFieldNumber, resume_token, &outer);
  outer += FieldHead(Response::kBatchFieldNumber, size);
  std::vector<grpc::Slice> parts = {grpc::Slice(outer)};
  for (size_t i = 0; i < events.size(); ++i) {
    parts.emplace_back(heads[i]);
    parts.push_back(events[i]);
  }
  return {parts.data(), parts.size()};
}

std::string WatchEncoder::Encode(const JobChange& change) const {
  v1::WatchTrainingJobsResponse event;
  event.set_resume_token(hub_->ResumeToken(change.revision));
  if (change.job == nullptr) {
    event.set_deleted_name(change.deleted_name);
    return event.SerializeAsString();
  }
  std::string bytes = event.SerializeAsString();
  AppendField(v1::WatchTrainingJobsResponse::kUpdatedFieldNumber, change.job->Serialize(), &bytes);
  return bytes;
}

}  // namespace lasp::server
