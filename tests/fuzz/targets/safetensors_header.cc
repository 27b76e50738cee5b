// The head of a safetensors file that somebody else made: what is taken fills the file and no more,
// and means the same when it is printed.
#include "proto/checkpoint/safetensors_header.h"

#include "tests/fuzz/fuzz_target.h"

namespace lasp {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view file = fuzz::ToText(data, size);
  const auto offset = SafetensorsDataOffset(file, static_cast<int64_t>(size));
  if (!offset.ok()) {
    return 0;
  }
  fuzz::Require(*offset <= static_cast<int64_t>(size), "the data begins within the file");
  const int64_t data_bytes = static_cast<int64_t>(size) - *offset;
  const auto header =
      ParseSafetensorsHeader(file.substr(static_cast<size_t>(kSafetensorsLengthBytes),
                                         static_cast<size_t>(*offset - kSafetensorsLengthBytes)),
                             data_bytes);
  if (!header.ok()) {
    return 0;
  }
  int64_t filled = 0;
  for (const SafetensorsEntry& tensor : header->tensors) {
    fuzz::Require(tensor.begin == filled && tensor.end >= tensor.begin, "no hole and no overlap");
    filled = tensor.end;
  }
  fuzz::Require(filled == data_bytes, "every byte is a tensor's");
  const std::string printed = PrintSafetensorsHeader(*header);
  const auto again = ParseSafetensorsHeader(
      absl::string_view(printed).substr(static_cast<size_t>(kSafetensorsLengthBytes)), data_bytes);
  fuzz::Require(again.ok(), "what is printed is read");
  fuzz::Require(
      again->metadata == header->metadata && again->tensors.size() == header->tensors.size(),
      "and is the same");
  fuzz::Require(PrintSafetensorsHeader(*again) == printed, "to the byte");
  return 0;
}

}  // namespace lasp
