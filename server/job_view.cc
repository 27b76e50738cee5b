#include "server/job_view.h"

#include "absl/strings/str_cat.h"
#include "server/wire_field.h"

namespace lasp::server {

lasp::v1::TrainingJob JobView::ToProto() const {
  lasp::v1::TrainingJob proto = job;
  if (spec != nullptr) {
    proto.mutable_spec()->ParseFromString(*spec);
  }
  proto.set_etag(Etag());
  return proto;
}

std::string JobView::Serialize() const {
  std::string bytes = job.SerializeAsString();
  if (spec != nullptr) {
    AppendField(lasp::v1::TrainingJob::kSpecFieldNumber, *spec, &bytes);
  }
  AppendField(lasp::v1::TrainingJob::kEtagFieldNumber, Etag(), &bytes);
  return bytes;
}

std::string JobView::Etag() const { return absl::StrCat(absl::Hex(revision)); }

}  // namespace lasp::server
