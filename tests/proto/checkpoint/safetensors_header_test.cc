#include "proto/checkpoint/safetensors_header.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace lasp {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

SafetensorsHeader TwoTensors() {
  return {.metadata = {{"format", "pt"}, {"step", "12"}},
          .tensors = {{.name = "a", .dtype = "F32", .shape = {2, 3}, .begin = 0, .end = 24},
                      {.name = "b", .dtype = "BF16", .shape = {}, .begin = 24, .end = 26}}};
}

// What a reader that knows no more of the format than its description sees.
nlohmann::json ReadPlainly(const std::string& file) {
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) {
    length = length * 256 + static_cast<unsigned char>(file[static_cast<size_t>(i)]);
  }
  EXPECT_EQ(length + 8, file.size());
  return nlohmann::json::parse(file.substr(8));
}

TEST(SafetensorsHeaderTest, WhatIsPrintedIsWhatTheFormatAsksFor) {
  const std::string file = PrintSafetensorsHeader(TwoTensors());
  EXPECT_EQ(file.size() % 64, 0u);
  EXPECT_EQ(file[8], '{');
  const nlohmann::json json = ReadPlainly(file);
  EXPECT_EQ(json["__metadata__"]["step"], "12");
  EXPECT_EQ(json["a"]["dtype"], "F32");
  EXPECT_EQ(json["a"]["shape"], (std::vector<int>{2, 3}));
  EXPECT_EQ(json["b"]["data_offsets"], (std::vector<int>{24, 26}));
}

TEST(SafetensorsHeaderTest, WhatIsPrintedIsReadBack) {
  for (const SafetensorsHeader& header : {TwoTensors(), SafetensorsHeader{}}) {
    const std::string file = PrintSafetensorsHeader(header);
    const int64_t data_bytes = header.tensors.empty() ? 0 : 26;
    const auto offset =
        SafetensorsDataOffset(file.substr(0, 8), static_cast<int64_t>(file.size()) + data_bytes);
    LASP_ASSERT_OK(offset);
    EXPECT_EQ(*offset, static_cast<int64_t>(file.size()));
    const auto read = ParseSafetensorsHeader(file.substr(8), data_bytes);
    LASP_ASSERT_OK(read);
    EXPECT_EQ(read->metadata, header.metadata);
    ASSERT_EQ(read->tensors.size(), header.tensors.size());
    for (size_t i = 0; i < header.tensors.size(); ++i) {
      EXPECT_EQ(read->tensors[i].name, header.tensors[i].name);
      EXPECT_EQ(read->tensors[i].shape, header.tensors[i].shape);
      EXPECT_EQ(read->tensors[i].end, header.tensors[i].end);
    }
  }
}

TEST(SafetensorsHeaderTest, ALengthThatLiesIsRefusedBeforeAnythingIsRead) {
  const auto length = [](uint64_t value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  };
  EXPECT_THAT(SafetensorsDataOffset("1234567", 1000),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
  EXPECT_THAT(SafetensorsDataOffset(length(2), 7),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("it has 7 bytes")));
  EXPECT_THAT(SafetensorsDataOffset(length(993), 1000),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("in a file of 1000")));
  for (const uint64_t absurd : {uint64_t{0}, uint64_t{100'000'001}, ~uint64_t{0}}) {
    EXPECT_THAT(SafetensorsDataOffset(length(absurd), int64_t{1} << 40),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("at most 100000000")));
  }
  LASP_EXPECT_OK(SafetensorsDataOffset(length(992), 1000));
}

TEST(SafetensorsHeaderTest, WhatDoesNotHoldIsNamed) {
  const std::string b = R"("b":{"dtype":"F32","shape":[4],"data_offsets":[8,24]})";

  const struct {
    std::string json;
    std::string error;
  } cases[] = {
      {"", "no JSON"},
      {"{", "no JSON"},
      {"{} x", "no JSON"},
      {"[]", "an array"},
      {"7", "the number 7"},
      {std::string(1'000'000, '['), "an array"},
      {absl::StrCat("{", b, "}"), "behind a hole from byte 0"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},)" + b + "}",
       "'b' begins at byte 8, within what goes to byte 12"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "bytes 8 to 24 belong to no"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
       R"("a":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}})",
       "'a' is there twice"},
      {R"({"a":{"dtype":"F32","shape":[6],"shape":[6],"data_offsets":[0,24]}})", "twice"},
      {R"({"a":{"dtype":"F32","shape":[5],"data_offsets":[0,24]}})",
       "its shape asks for 5 times 4"},
      {R"({"a":{"dtype":"Q4","shape":[6],"data_offsets":[0,24]}})", "the dtype 'Q4'"},
      {R"({"a":{"dtype":"F32","shape":[7],"data_offsets":[0,28]}})", "to 28 of 24"},
      {R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[24,0]}})", "from byte 24 to 0"},
      {R"({"a":{"dtype":"F32","shape":[6],"data_offsets":[0]}})", "two numbers"},
      {R"({"a":{"dtype":"F32","shape":[6]}})", "needs a dtype"},
      {R"({"a":{"dtype":"F32","shape":[-6],"data_offsets":[0,24]}})", "a negative number"},
      {R"({"a":{"dtype":"F32","shape":[6.0],"data_offsets":[0,24]}})", "the number 6.0"},
      {R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,24]}})",
       "the number 18446744073709551615"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,24]}})",
       "too many elements"},
      {R"({"a":{"dtype":"F32","shape":[[6]],"data_offsets":[0,24]}})", "an array"},
      {R"({"a":{"dtype":6,"shape":[6],"data_offsets":[0,24]}})", "the number 6"},
      {R"({"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24],"x":1}})", "has a field 'x'"},
      {R"({"a":null})", "null"},
      {R"({"__metadata__":{"a":1}})", "the number 1"},
      {R"({"__metadata__":{"a":{}}})", "an object"},
      {"{\"\xff\":{}}", "no JSON"},
  };

  for (const auto& [json, error] : cases) {
    EXPECT_THAT(ParseSafetensorsHeader(json, 24),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(error)))
        << json.substr(0, 100);
  }
}

TEST(SafetensorsHeaderTest, TensorsMayStandInAnyOrderAndBeEmpty) {
  const auto header =
      ParseSafetensorsHeader(R"({"b":{"dtype":"U8","shape":[2,2],"data_offsets":[4,8]},)"
                             R"("none":{"dtype":"F32","shape":[0,9],"data_offsets":[4,4]},)"
                             R"("a":{"data_offsets":[0,4],"shape":[1],"dtype":"F32"}}    )",
                             8);
  LASP_ASSERT_OK(header);
  ASSERT_EQ(header->tensors.size(), 3u);
  EXPECT_EQ(header->tensors[0].name, "a");
  EXPECT_EQ(header->tensors[2].name, "b");
}

}  // namespace
}  // namespace lasp
