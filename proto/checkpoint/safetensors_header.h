// The head of a safetensors file: eight bytes of length, little-endian, then JSON that says where
// in the rest of the file each tensor lies.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lasp {

inline constexpr int64_t kSafetensorsLengthBytes = 8;
// The format's own limit.
inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // "F32"
  std::vector<int64_t> shape;
  // In bytes from the beginning of the data.
  int64_t begin = 0;
  int64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::vector<SafetensorsEntry> tensors;
};

// The file up to its data, which begins at a multiple of 64. The entries are taken as they are.
std::string PrintSafetensorsHeader(const SafetensorsHeader& header);

// Where the data begins, from the file's first kSafetensorsLengthBytes bytes. INVALID_ARGUMENT
// where there are fewer, or the length is not one that the file can have.
absl::StatusOr<int64_t> SafetensorsDataOffset(absl::string_view first_bytes, int64_t file_bytes);

// `json`: what lies between the length and the data. INVALID_ARGUMENT names what is wrong unless
// the tensors fill the `data_bytes` behind it, without a hole and without two of them over each
// other, each of a name of its own and as many bytes as its dtype and shape ask for. The entries
// come in the order in which they lie.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json,
                                                         int64_t data_bytes);

}  // namespace lasp
