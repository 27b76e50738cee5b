// model.safetensors.index.json: which tensor is in which of several files.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lasp {

inline constexpr char kModelFile[] = "model.safetensors";
inline constexpr char kModelIndexFile[] = "model.safetensors.index.json";

// The name of file `number`, from 1 on, of `count`: model-00001-of-00002.safetensors.
std::string ModelShardName(int number, int count);

struct ModelIndex {
  // Bytes of all tensors; 0 where it is not said.
  int64_t total_size = 0;
  // Tensor to file.
  std::map<std::string, std::string> files;
};

std::string ModelIndexText(const ModelIndex& index);

// INVALID_ARGUMENT where it is no index, names a tensor twice, or a file that is not a plain name
// ending in .safetensors: nothing outside the folder is ever opened.
absl::StatusOr<ModelIndex> ParseModelIndex(absl::string_view text);

}  // namespace lasp
