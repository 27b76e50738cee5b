// A job as it was at one revision: immutable, shared by everybody who reads it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lasp/v1/training_job.pb.h"

namespace lasp::server {

struct JobView {
  // The store's key; grows with creation, so it also is the order of creation.
  int64_t id = 0;
  // Of the last change. Grows over all resources, also across restarts of the coordinator.
  int64_t revision = 0;
  // Everything except spec, transitions and etag.
  lasp::v1::TrainingJob job;
  // A serialised TrainingSpec: a tenth of the size of the parsed one, and shared by all revisions.
  std::shared_ptr<const std::string> spec;

  // The whole resource but for `transitions`.
  lasp::v1::TrainingJob ToProto() const;
  // The same as bytes, without parsing the spec.
  std::string Serialize() const;
  std::string Etag() const;
};

using JobViewPtr = std::shared_ptr<const JobView>;

}  // namespace lasp::server
