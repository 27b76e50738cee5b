#include "proto/interchange/element_type.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace lasp {
namespace {

uint16_t Bits(const std::string& bytes, size_t index) {
  uint16_t bits = 0;
  std::memcpy(&bits, bytes.data() + 2 * index, 2);
  return bits;
}

TEST(ElementTypeTest, RoundsToTheNearestTiesToEven) {
  // 1 + 2^-8 lies between 1 and 1 + 2^-7; 1 + 3 * 2^-8 between that and 1 + 2^-6.
  const std::vector<float> values = {1.0F,
                                     1.0F + 0x1p-8F,
                                     1.0F + 0x3p-8F,
                                     1.0F + 0x1.01p-8F,
                                     -2.5F,
                                     std::numeric_limits<float>::max(),
                                     std::numeric_limits<float>::quiet_NaN(),
                                     std::bit_cast<float>(0x7f800001U)};
  std::string bytes;
  EncodeElements(ElementType::kBfloat16, values, &bytes);
  ASSERT_EQ(bytes.size(), 2 * values.size());
  EXPECT_EQ(Bits(bytes, 0), 0x3f80);
  EXPECT_EQ(Bits(bytes, 1), 0x3f80);
  EXPECT_EQ(Bits(bytes, 2), 0x3f82);
  EXPECT_EQ(Bits(bytes, 3), 0x3f81);
  EXPECT_EQ(Bits(bytes, 4), 0xc020);
  EXPECT_EQ(Bits(bytes, 5), 0x7f80);
  std::vector<float> back(values.size());
  DecodeElements(ElementType::kBfloat16, bytes.data(), back.size(), back.data());
  EXPECT_EQ(back[4], -2.5F);
  EXPECT_TRUE(std::isnan(back[6]));
  EXPECT_TRUE(std::isnan(back[7])) << "a NaN does not become an infinity";
}

TEST(ElementTypeTest, ReadsEveryHalf) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    float value = 0;
    DecodeElements(ElementType::kFloat16, reinterpret_cast<const char*>(&half), 1, &value);
    // The compiler's own.
    _Float16 expected = 0;
    std::memcpy(&expected, &half, sizeof half);
    if (std::isnan(static_cast<float>(expected))) {
      EXPECT_TRUE(std::isnan(value)) << bits;
    } else {
      EXPECT_EQ(value, static_cast<float>(expected)) << bits;
    }
  }
}

TEST(ElementTypeTest, KnowsItsNames) {
  for (const ElementType type :
       {ElementType::kFloat32, ElementType::kBfloat16, ElementType::kFloat16}) {
    EXPECT_EQ(ElementTypeOf(SafetensorsName(type)), type);
  }
  EXPECT_EQ(ElementTypeOf("F64"), std::nullopt);
}

}  // namespace
}  // namespace lasp
