// An index that somebody else made: it names plain files, and is the same when it is written.
#include "proto/interchange/model_index.h"

#include "tests/fuzz/fuzz_target.h"

namespace lasp {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto index = ParseModelIndex(fuzz::ToText(data, size));
  if (!index.ok()) {
    return 0;
  }
  fuzz::Require(!index->files.empty() && index->total_size >= 0, "something is named");
  for (const auto& [tensor, file] : index->files) {
    fuzz::Require(file.find('/') == std::string::npos && file[0] != '.', "beside the index");
  }
  const auto again = ParseModelIndex(ModelIndexText(*index));
  fuzz::Require(again.ok(), "what is written is read");
  fuzz::Require(
      again->files.size() == index->files.size() && again->total_size == index->total_size,
      "and is the same");
  return 0;
}

}  // namespace lasp
