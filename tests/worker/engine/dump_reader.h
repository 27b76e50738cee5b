// What WriteStepDump has written, and how far two such tensors differ.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace lasp::worker {

// The arrays of one rank's dump, by name, as double: gradients, whatever else.
inline std::map<std::string, std::vector<double>> ReadDump(const std::string& stem) {
  const nlohmann::json index = nlohmann::json::parse(std::ifstream(stem + ".json"));
  std::ifstream file(stem + ".bin", std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::map<std::string, std::vector<double>> arrays;
  for (const auto& array : index["arrays"]) {
    size_t count = 1;
    for (const auto& size : array["shape"]) {
      count *= size.get<size_t>();
    }
    std::vector<double>& values = arrays[array["name"]];
    for (size_t i = 0; i < count; ++i) {
      const bool wide = array["dtype"] == "float64";
      const char* const at =
          bytes.data() + array["offset"].get<size_t>() + (wide ? sizeof(double) : 4) * i;
      if (wide) {
        std::memcpy(&values.emplace_back(), at, sizeof(double));
        continue;
      }
      float real = 0;
      int32_t integer = 0;
      std::memcpy(&real, at, 4);
      std::memcpy(&integer, at, 4);
      values.push_back(array["dtype"] == "int32" ? integer : static_cast<double>(real));
    }
  }
  const auto first = arrays.lower_bound("gradient/");
  EXPECT_TRUE(first != arrays.end() && first->first.rfind("gradient/", 0) == 0) << stem;
  return arrays;
}

inline double RelativeRms(const std::vector<double>& got, const std::vector<double>& want) {
  EXPECT_EQ(got.size(), want.size());
  double difference = 0;
  double scale = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    scale += want[i] * want[i];
  }
  return std::sqrt(difference / scale);
}

}  // namespace lasp::worker
