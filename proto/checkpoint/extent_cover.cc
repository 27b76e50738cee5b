#include "proto/checkpoint/extent_cover.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"

namespace lasp {
namespace {

// Beyond it a double, and JSON's numbers, are not exact.
constexpr int64_t kMostElements = int64_t{1} << 53;

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};

struct Cover {
  int64_t elements = 0;
  int64_t element_bytes = 0;
  std::vector<Range> ranges;
};

void Sort(std::vector<Range>* ranges) {
  std::sort(ranges->begin(), ranges->end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
}

absl::Status AddExtent(const lasp::v1::CheckpointShard& shard, const lasp::v1::TensorExtent& extent,
                       std::map<std::string, Cover>* covers, std::vector<Range>* in_file) {
  const auto found = covers->find(extent.tensor());
  if (found == covers->end()) {
    return absl::DataLossError(
        absl::StrCat(shard.file(), " holds '", extent.tensor(), "', which is no tensor of it"));
  }
  Cover& cover = found->second;
  // None of the differences overflows: each is between two that are known not to be negative.
  if (extent.begin() < 0 || extent.count() < 1 || extent.begin() > cover.elements ||
      extent.count() > cover.elements - extent.begin()) {
    return absl::DataLossError(absl::StrCat(shard.file(), " holds elements ", extent.begin(),
                                            " and ", extent.count(), " on of '", extent.tensor(),
                                            "', which has ", cover.elements));
  }
  const int64_t bytes = extent.count() * cover.element_bytes;
  if (extent.offset_bytes() < 0 || extent.offset_bytes() > shard.size_bytes() ||
      bytes > shard.size_bytes() - extent.offset_bytes()) {
    return absl::DataLossError(absl::StrCat("'", extent.tensor(), "' does not lie inside ",
                                            shard.file(), ", which has ", shard.size_bytes(),
                                            " bytes"));
  }
  cover.ranges.push_back({extent.begin(), extent.begin() + extent.count()});
  in_file->push_back({extent.offset_bytes(), extent.offset_bytes() + bytes});
  return absl::OkStatus();
}

absl::Status CheckWhole(absl::string_view tensor, Cover* cover) {
  Sort(&cover->ranges);
  int64_t covered = 0;
  for (const Range& range : cover->ranges) {
    if (range.begin != covered) {
      return absl::DataLossError(
          absl::StrCat("element ", std::min(range.begin, covered), " of '", tensor, "' is in ",
                       range.begin > covered ? "no shard" : "more than one shard"));
    }
    covered = range.end;
  }
  if (covered != cover->elements) {
    return absl::DataLossError(
        absl::StrCat("element ", covered, " of '", tensor, "' is in no shard"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int64_t> ElementBytes(absl::string_view dtype) {
  if (dtype == "F32") {
    return 4;
  }
  return absl::InvalidArgumentError(absl::StrCat("the dtype '", dtype, "': checkpoints hold F32"));
}

absl::StatusOr<int64_t> ElementCount(const lasp::v1::CheckpointTensor& tensor) {
  int64_t count = 1;
  for (const int64_t size : tensor.shape()) {
    if (size < 1 || size > kMostElements / count) {
      return absl::InvalidArgumentError(absl::StrCat("'", tensor.name(), "' has a dimension of ",
                                                     size, " beside ", count, " elements"));
    }
    count *= size;
  }
  return count;
}

absl::Status CheckCover(
    const google::protobuf::RepeatedPtrField<lasp::v1::CheckpointTensor>& tensors,
    const google::protobuf::RepeatedPtrField<lasp::v1::CheckpointShard>& shards) {
  std::map<std::string, Cover> covers;
  for (const lasp::v1::CheckpointTensor& tensor : tensors) {
    Cover cover;
    LASP_ASSIGN_OR_RETURN(cover.elements, ElementCount(tensor));
    LASP_ASSIGN_OR_RETURN(cover.element_bytes, ElementBytes(tensor.dtype()));
    if (!covers.try_emplace(tensor.name(), std::move(cover)).second) {
      return absl::DataLossError(absl::StrCat("'", tensor.name(), "' is there twice"));
    }
  }
  for (const lasp::v1::CheckpointShard& shard : shards) {
    std::vector<Range> in_file;
    for (const lasp::v1::TensorExtent& extent : shard.extents()) {
      LASP_RETURN_IF_ERROR(AddExtent(shard, extent, &covers, &in_file));
    }
    Sort(&in_file);
    for (size_t i = 1; i < in_file.size(); ++i) {
      if (in_file[i].begin < in_file[i - 1].end) {
        return absl::DataLossError(
            absl::StrCat("two parts of ", shard.file(), " are at byte ", in_file[i].begin));
      }
    }
  }
  for (auto& [name, cover] : covers) {
    LASP_RETURN_IF_ERROR(CheckWhole(name, &cover));
  }
  return absl::OkStatus();
}

}  // namespace lasp
