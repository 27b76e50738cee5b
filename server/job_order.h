// The order of a list: one field up or down, ties broken by name, so that a page can begin after a
// key whatever has been created or deleted in between.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lasp/v1/training_job.pb.h"

namespace lasp::server {

// Where a job stands in an order. Keys of one order compare by (number, text, name).
struct JobOrderKey {
  // Nanoseconds since the epoch for the time fields.
  int64_t number = 0;
  std::string text;
  std::string name;
};

class JobOrder {
 public:
  // `create_time`, `update_time`, `name` or `display_name`, with ` desc` or ` asc`; empty means
  // `create_time desc`. INVALID_ARGUMENT (reason INVALID_ORDER_BY) otherwise.
  static absl::StatusOr<JobOrder> Parse(absl::string_view text);

  JobOrderKey KeyOf(const v1::TrainingJob& job) const;
  // Whether `a` comes before `b` in the list.
  bool Before(const JobOrderKey& a, const JobOrderKey& b) const;

 private:
  enum class Field { kCreateTime, kUpdateTime, kName, kDisplayName };
  Field field_ = Field::kCreateTime;
  bool descending_ = true;
};

}  // namespace lasp::server
