// The file of tokens: what is not of its form is refused, and no message tells a hash.
#include "absl/strings/match.h"
#include "server/token_table.h"
#include "tests/fuzz/fuzz_target.h"

namespace lasp {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text = fuzz::ToText(data, size);
  const auto table = server::TokenTable::Parse(text);
  if (table.ok()) {
    fuzz::Require(table->Find(text) == nullptr, "no file holds its own hash");
    fuzz::Require(table->Find("") == nullptr, "nothing is no token");
    return 0;
  }
  // The hash of the seeds, which mutations keep or cut.
  fuzz::Require(!absl::StrContains(table.status().message(), "60303ae22b998861bce3b28f33eec1be"),
                "a message holds no hash");
  return 0;
}

}  // namespace lasp
