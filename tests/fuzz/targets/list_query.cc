// What a list or a watch is asked with: filters, orders, names.
#include "proto/rpc/resource_name.h"
#include "server/job_filter.h"
#include "server/job_order.h"
#include "tests/fuzz/fuzz_target.h"

namespace lasp {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const job = [] {
    auto* made = new v1::TrainingJob;
    made->set_name("projects/default/trainingJobs/a");
    made->set_display_name("a \"b\" \\");
    made->set_state(v1::TrainingJob::STATE_RUNNING);
    made->mutable_create_time()->set_seconds(1'700'000'000);
    (*made->mutable_labels())["team"] = "nlp";
    return made;
  }();
  absl::string_view text = fuzz::ToText(data, size);
  const auto filter = server::JobFilter::Parse(text);
  if (filter.ok()) {
    fuzz::Require(filter->Matches(*job) == filter->Matches(*job), "a filter has one answer");
    (void)filter->may_change();
  } else {
    fuzz::Require(absl::IsInvalidArgument(filter.status()), "a refusal is INVALID_ARGUMENT");
  }
  const auto order = server::JobOrder::Parse(text);
  if (order.ok()) {
    const auto key = order->KeyOf(*job);
    fuzz::Require(!order->Before(key, key), "an order is strict");
  }
  if (const auto name = ParseJobName(text); name.ok()) {
    fuzz::Require(name->ToString() == text, "a name is its parts");
  }
  if (const auto project = ParseProjectName(text, true); project.ok()) {
    fuzz::Require("projects/" + *project == text, "a project's name is its parts");
  }
  (void)ParseWorkerName(text);
  return 0;
}

}  // namespace lasp
