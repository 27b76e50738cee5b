#include "proto/interchange/model_index.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/checkpoint/quoted_name.h"
#include "proto/interchange/strict_json.h"
#include "proto/rpc/status_macros.h"

namespace lasp {
namespace {

using nlohmann::json;

// A million tensors.
constexpr int64_t kMaxIndexBytes = 128 << 20;
constexpr size_t kMaxNameBytes = 255;

absl::Status Wrong(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(kModelIndexFile, ": ", what));
}

bool IsPlainName(absl::string_view name) {
  return name.size() <= kMaxNameBytes && absl::EndsWith(name, ".safetensors") && name[0] != '.' &&
         name.find('/') == absl::string_view::npos && name.find('\0') == absl::string_view::npos;
}

}  // namespace

std::string ModelShardName(int number, int count) {
  return absl::StrFormat("model-%05d-of-%05d.safetensors", number, count);
}

std::string ModelIndexText(const ModelIndex& index) {
  const nlohmann::ordered_json text = {{"metadata", {{"total_size", index.total_size}}},
                                       {"weight_map", index.files}};
  return text.dump(2, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace) + "\n";
}

absl::StatusOr<ModelIndex> ParseModelIndex(absl::string_view text) {
  LASP_ASSIGN_OR_RETURN(const json parsed, ParseJsonObject(kModelIndexFile, text, kMaxIndexBytes));
  const auto map = parsed.find("weight_map");
  if (map == parsed.end() || !map->is_object() || map->empty()) {
    return Wrong("has no weight_map that says in which file each tensor is");
  }
  ModelIndex index;
  if (const auto metadata = parsed.find("metadata");
      metadata != parsed.end() && metadata->is_object()) {
    const auto size = metadata->find("total_size");
    if (size != metadata->end()) {
      // Some writers print it as 1.2e9.
      const double bytes = size->is_number() ? size->get<double>() : -1;
      if (!(bytes >= 0 && bytes < static_cast<double>(std::numeric_limits<int64_t>::max()))) {
        return Wrong("metadata.total_size is no size");
      }
      index.total_size =
          size->is_number_float() ? static_cast<int64_t>(bytes) : size->get<int64_t>();
    }
  }
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !IsPlainName(file.get_ref<const std::string&>())) {
      return Wrong(absl::StrCat(QuotedName(tensor), " is said to be in ",
                                file.is_string() ? QuotedName(file.get_ref<const std::string&>())
                                                 : "something else than a file",
                                ", no .safetensors file of this folder"));
    }
    index.files[tensor] = file.get<std::string>();
  }
  return index;
}

}  // namespace lasp
