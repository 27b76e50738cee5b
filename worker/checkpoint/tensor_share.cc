#include "worker/checkpoint/tensor_share.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace lasp::worker {
namespace {

// 256 bytes of fp32.
constexpr int64_t kPiece = 64;

}  // namespace

TensorShare ShareOf(int64_t elements, int world_size, int rank) {
  const int64_t pieces = (elements + kPiece - 1) / kPiece;
  const auto border = [&](int64_t before) {
    return std::min(elements, kPiece * (pieces * before / world_size));
  };
  return {border(rank), border(rank + 1) - border(rank), border(rank)};
}

std::optional<std::vector<TensorShare>> OwnedShares(const DataParallel& parallel) {
  if (parallel.replicates()) {
    return std::nullopt;
  }
  std::vector<TensorShare> shares;
  shares.reserve(parallel.owned().size());
  for (const OwnedRange& range : parallel.owned()) {
    shares.push_back(range.share);
  }
  return shares;
}

std::vector<TensorShare> PartOf(const std::vector<TensorShare>& shares, int ranks, int rank) {
  std::vector<TensorShare> parts;
  parts.reserve(shares.size());
  for (const TensorShare& share : shares) {
    const TensorShare part = ShareOf(share.count, ranks, rank);
    parts.push_back({share.begin + part.begin, part.count, share.local + part.begin});
  }
  return parts;
}

std::vector<lasp::v1::CheckpointTensor> CheckpointTensors(const ParameterLayout& layout) {
  std::vector<lasp::v1::CheckpointTensor> tensors;
  tensors.reserve(kPartPrefixes.size() * layout.parameters().size());
  for (const char* const prefix : kPartPrefixes) {
    for (const Parameter& parameter : layout.parameters()) {
      lasp::v1::CheckpointTensor& tensor = tensors.emplace_back();
      tensor.set_name(absl::StrCat(prefix, parameter.name));
      tensor.set_dtype("F32");
      tensor.add_shape(parameter.rows);
      tensor.add_shape(parameter.columns);
    }
  }
  return tensors;
}

std::vector<lasp::v1::TensorExtent> ExtentsOf(const ParameterLayout& layout,
                                              const std::vector<TensorShare>& shares) {
  std::vector<lasp::v1::TensorExtent> extents;
  int64_t offset = 0;
  for (const char* const prefix : kPartPrefixes) {
    for (const TensorShare& share : shares) {
      for (const Parameter& parameter : layout.parameters()) {
        const int64_t begin = std::max(share.begin, parameter.offset);
        const int64_t end =
            std::min(share.begin + share.count, parameter.offset + parameter.count());
        if (begin >= end) {
          continue;
        }
        lasp::v1::TensorExtent extent;
        extent.set_tensor(absl::StrCat(prefix, parameter.name));
        extent.set_begin(begin - parameter.offset);
        extent.set_count(end - begin);
        extent.set_offset_bytes(offset);
        offset += (end - begin) * static_cast<int64_t>(sizeof(float));
        extents.push_back(std::move(extent));
      }
    }
  }
  return extents;
}

}  // namespace lasp::worker
