// Job files: YAML and JSON by users' hands, and --set.
#include "client/job_file.h"

#include <algorithm>

#include "proto/spec/spec_defaults.h"
#include "proto/spec/spec_validator.h"
#include "server/job_fields.h"
#include "tests/fuzz/fuzz_target.h"

namespace lasp {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text = fuzz::ToText(data, size);
  auto file = client::ParseJobFile(text);
  if (file.ok()) {
    const auto lines = 1 + std::count(text.begin(), text.end(), '\n');
    for (const auto& [path, line] : file->lines) {
      fuzz::Require(line >= 1 && line <= lines + 1, "a field's line is in the file");
    }
    (void)server::CheckJobFields(file->job);
    (void)ValidateSpec(file->job.spec());
  }
  v1::TrainingJob job;
  (void)client::ApplySetting(text, &job);
  return 0;
}

}  // namespace lasp
