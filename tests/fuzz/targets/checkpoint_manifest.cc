// A manifest that a disk or a stranger changed: what is taken covers its tensors, and is written as
// it was read.
#include "proto/checkpoint/manifest.h"
#include "tests/fuzz/fuzz_target.h"

namespace lasp {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto manifest = ParseManifest(fuzz::ToText(data, size));
  if (!manifest.ok()) {
    return 0;
  }
  fuzz::Require(CheckManifest(*manifest).ok(), "what is parsed is checked");
  const auto text = ManifestText(*manifest);
  fuzz::Require(text.ok(), "it can be written");
  const auto again = ParseManifest(*text);
  fuzz::Require(again.ok(), "what is written is read");
  fuzz::Require(again->SerializeAsString().size() == manifest->SerializeAsString().size(),
                "and is the same");
  return 0;
}

}  // namespace lasp
