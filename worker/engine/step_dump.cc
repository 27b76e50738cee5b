#include "worker/engine/step_dump.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

const char* NameOf(DType type) {
  switch (type) {
    case DType::kFloat32:
      return "float32";
    case DType::kFloat64:
      return "float64";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kInt32:
      return "int32";
  }
  return "";
}

// Appends arrays to a file and describes them.
class ArrayWriter {
 public:
  explicit ArrayWriter(const std::string& path) : file_(path, std::ios::binary) {}

  void Add(const std::string& name, DType type, const std::vector<int64_t>& shape, const void* data,
           int64_t bytes) {
    file_.write(static_cast<const char*>(data), bytes);
    index_.push_back(
        {{"name", name}, {"dtype", NameOf(type)}, {"shape", shape}, {"offset", offset_}});
    offset_ += bytes;
  }

  bool Close() {
    file_.close();
    return !file_.fail();
  }

  const nlohmann::json& index() const { return index_; }

 private:
  std::ofstream file_;
  nlohmann::json index_ = nlohmann::json::array();
  int64_t offset_ = 0;
};

void AddTokens(const std::vector<Batch>& batches, ArrayWriter& writer) {
  std::vector<int32_t> tokens;
  std::vector<int32_t> labels;
  int64_t sequences = 0;
  for (const Batch& batch : batches) {
    sequences += batch.sequences;
    tokens.insert(tokens.end(), batch.tokens.begin(), batch.tokens.end());
    labels.insert(labels.end(), batch.labels.begin(), batch.labels.end());
  }
  const auto count = static_cast<int64_t>(tokens.size());
  std::vector<int64_t> shape = {sequences, batches.front().tokens_per_rank};
  if (shape[0] * shape[1] != count) {
    // Macro-chunks of several sizes, one behind the other.
    shape = {1, count};
  }
  const auto bytes = static_cast<int64_t>(tokens.size() * sizeof(int32_t));
  writer.Add("tokens", DType::kInt32, shape, tokens.data(), bytes);
  writer.Add("labels", DType::kInt32, shape, labels.data(), bytes);
}

absl::Status AddParameters(const std::string& prefix, const ParameterLayout& layout,
                           const PlacesOf& places, Backend& backend, DataParallel& parallel,
                           const std::function<Tensor(const OwnedRange&)>& part,
                           ArrayWriter& writer) {
  for (const Parameter& parameter : layout.parameters()) {
    const DType type = parallel.masters().dtype;
    const int64_t count = parameter.count();
    LASP_ASSIGN_OR_RETURN(const auto memory, backend.Allocate(count * SizeOf(type)));
    const Tensor values{memory->data(), type, 1, count, count};
    LASP_RETURN_IF_ERROR(GatherOwned(parallel, backend, places, part, parameter.offset, values));
    std::vector<char> host(static_cast<size_t>(values.bytes()));
    backend.CopyToHost(values, host.data());
    writer.Add(absl::StrCat(prefix, parameter.name), values.dtype,
               {parameter.rows, parameter.columns}, host.data(), values.bytes());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteStepDump(const StepDump& dump, const ProcessGrid& grid,
                           const ParameterLayout& layout, const PlacesOf& places, Backend& backend,
                           DataParallel& parallel) {
  std::error_code error;
  std::filesystem::create_directories(dump.directory, error);
  const std::string stem = absl::StrCat(dump.directory, "/rank-", grid.rank());
  ArrayWriter writer(stem + ".bin");
  AddTokens(dump.batches, writer);
  const Tensor masters = parallel.masters();
  LASP_RETURN_IF_ERROR(AddParameters(
      "parameter/", layout, places, backend, parallel,
      [&masters](const OwnedRange& range) {
        return masters.Columns(range.share.local, range.share.count);
      },
      writer));
  LASP_RETURN_IF_ERROR(AddParameters(
      "gradient/", layout, places, backend, parallel,
      [](const OwnedRange& range) { return range.gradient; }, writer));
  if (!writer.Close()) {
    return absl::FailedPreconditionError(absl::StrCat("cannot write ", stem, ".bin"));
  }
  const nlohmann::json index = {{"step", dump.step},
                                {"rank", grid.rank()},
                                {"sp", grid.sp_size()},
                                {"dp", grid.dp_size()},
                                {"loss", dump.loss},
                                {"gradient_norm", dump.gradient_norm},
                                {"label_count", dump.label_count},
                                {"arrays", writer.index()}};
  std::ofstream file(stem + ".json");
  file << index.dump(1) << "\n";
  file.close();
  if (file.fail()) {
    return absl::FailedPreconditionError(absl::StrCat("cannot write ", stem, ".json"));
  }
  return absl::OkStatus();
}

}  // namespace lasp::worker
