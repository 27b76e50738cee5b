// Small models, and folders of them.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/interchange/model_folder.h"
#include "proto/interchange/model_folder_writer.h"
#include "proto/interchange/model_tensors.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"

namespace lasp {

inline lasp::v1::ModelSpec SmallModel(bool tied = false, bool learned = false) {
  lasp::v1::ModelSpec model;
  model.set_architecture(lasp::v1::ModelSpec::ARCHITECTURE_TRANSNORMER);
  model.set_layers(2);
  model.set_hidden_size(8);
  model.set_heads(2);
  model.set_glu_size(6);
  model.set_vocab_size(11);
  model.set_tie_embeddings(tied);
  model.set_layer_pattern("L");
  model.set_lrpe_theta(learned ? lasp::v1::ModelSpec::LRPE_THETA_LEARNED
                               : lasp::v1::ModelSpec::LRPE_THETA_FIXED);
  model.set_init_std(0.02);
  return model;
}

// Element i of tensor t: no two alike, and exact in bf16 where `coarse`.
inline float NumberOf(size_t tensor, int64_t element, bool coarse = false) {
  return coarse ? static_cast<float>((static_cast<int64_t>(tensor) * 37 + element) % 251) - 125
                : static_cast<float>(tensor) + static_cast<float>(element) / 4096 + 0.125F;
}

// Adds all tensors, in pieces of `piece` elements.
inline absl::Status AddAll(const lasp::v1::ModelSpec& model, bool coarse, int64_t piece,
                           ModelFolderWriter* writer) {
  const std::vector<ModelTensor> tensors = ModelTensors(model);
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (tensors[t].name == kThetaTensor &&
        model.lrpe_theta() == lasp::v1::ModelSpec::LRPE_THETA_FIXED) {
      continue;
    }
    for (int64_t begin = 0; begin < tensors[t].count(); begin += piece) {
      std::vector<float> values;
      values.reserve(static_cast<size_t>(piece));
      for (int64_t i = begin; i < std::min(begin + piece, tensors[t].count()); ++i) {
        values.push_back(NumberOf(t, i, coarse));
      }
      if (absl::Status added = writer->Add(tensors[t].name, begin, values); !added.ok()) {
        return added;
      }
    }
  }
  return absl::OkStatus();
}

inline void WriteModel(const ModelFolderWriter::Options& options, bool coarse = false,
                       int64_t piece = 7) {
  auto writer = ModelFolderWriter::Create(options);
  LASP_ASSERT_OK(writer);
  LASP_ASSERT_OK(AddAll(options.model, coarse, piece, writer->get()));
  LASP_ASSERT_OK((*writer)->Finish());
}

inline std::string ContentOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::vector<std::string> NamesIn(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace lasp
