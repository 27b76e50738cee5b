#include "server/job_order.h"

#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/error_details.h"

namespace lasp::server {
namespace {

int64_t Nanoseconds(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1'000'000'000 + time.nanos();
}

}  // namespace

absl::StatusOr<JobOrder> JobOrder::Parse(absl::string_view text) {
  JobOrder order;
  const std::vector<std::string> words = absl::StrSplit(text, ' ', absl::SkipEmpty());
  if (words.empty()) {
    return order;
  }
  bool known = words.size() <= 2;
  if (words[0] == "create_time") {
    order.field_ = Field::kCreateTime;
  } else if (words[0] == "update_time") {
    order.field_ = Field::kUpdateTime;
  } else if (words[0] == "name") {
    order.field_ = Field::kName;
  } else if (words[0] == "display_name") {
    order.field_ = Field::kDisplayName;
  } else {
    known = false;
  }
  order.descending_ = words.size() == 2 && words[1] == "desc";
  if (words.size() == 2 && words[1] != "desc" && words[1] != "asc") {
    known = false;
  }
  if (!known) {
    return ErrorWithReason(absl::StatusCode::kInvalidArgument,
                           absl::StrCat("order_by '", text.substr(0, 80),
                                        "' is not one of create_time, update_time, name and "
                                        "display_name, alone or followed by ' desc'"),
                           "INVALID_ORDER_BY");
  }
  return order;
}

JobOrderKey JobOrder::KeyOf(const v1::TrainingJob& job) const {
  JobOrderKey key;
  key.name = job.name();
  if (field_ == Field::kCreateTime) {
    key.number = Nanoseconds(job.create_time());
  } else if (field_ == Field::kUpdateTime) {
    key.number = Nanoseconds(job.update_time());
  } else if (field_ == Field::kDisplayName) {
    key.text = job.display_name();
  }
  return key;
}

bool JobOrder::Before(const JobOrderKey& a, const JobOrderKey& b) const {
  const auto left = std::tie(a.number, a.text, a.name);
  const auto right = std::tie(b.number, b.text, b.name);
  return descending_ ? right < left : left < right;
}

}  // namespace lasp::server
