// Jobs as clients send them: any message that parses is judged by its fields.
#include <algorithm>

#include "lasp/v1/training_job.pb.h"
#include "proto/spec/spec_defaults.h"
#include "proto/spec/spec_validator.h"
#include "server/job_fields.h"
#include "tests/fuzz/fuzz_target.h"

namespace lasp {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  v1::TrainingJob job;
  if (!job.ParseFromArray(data, static_cast<int>(size))) {
    return 0;
  }
  (void)server::CheckJobFields(job);
  FillDefaults(job.mutable_spec());
  const std::string once = job.spec().SerializeAsString();
  FillDefaults(job.mutable_spec());
  fuzz::Require(job.spec().SerializeAsString() == once, "defaults are filled in once");
  const auto violations = ValidateSpec(job.spec());
  fuzz::Require(std::all_of(violations.begin(), violations.end(),
                            [](const FieldViolation& violation) {
                              return !violation.field.empty() && !violation.description.empty();
                            }),
                "a violation names its field");
  return 0;
}

}  // namespace lasp
