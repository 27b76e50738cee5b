#include "proto/interchange/model_index.h"

#include "tests/proto/interchange/model_fixture.h"

namespace lasp {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ModelIndexTest, SaysWhatItWasGiven) {
  const ModelIndex index{.total_size = 12,
                         .files = {{"a", "x.safetensors"}, {"b", "y.safetensors"}}};
  const auto read = ParseModelIndex(ModelIndexText(index));
  LASP_ASSERT_OK(read);
  EXPECT_EQ(read->total_size, 12);
  EXPECT_EQ(read->files, index.files);
  EXPECT_EQ(ModelShardName(3, 12), "model-00003-of-00012.safetensors");
}

TEST(ModelIndexTest, TakesSizesAsOthersWriteThem) {
  for (const char* size : {"15000000000", "1.5e10"}) {
    const auto read = ParseModelIndex(absl::StrCat(R"({"metadata": {"total_size": )", size,
                                                   R"(}, "weight_map": {"a": "a.safetensors"}})"));
    LASP_ASSERT_OK(read);
    EXPECT_EQ(read->total_size, 15'000'000'000);
  }
}

TEST(ModelIndexTest, NamesNothingOutsideOfTheFolder) {
  for (const char* file :
       {"../model.safetensors", "/etc/model.safetensors", "a/b.safetensors", "..safetensors",
        ".hidden.safetensors", "model.bin", "", ".safetensors", "a\\u0000.safetensors"}) {
    EXPECT_THAT(
        ParseModelIndex(absl::StrCat(R"({"weight_map": {"tensor": ")", file, R"("}})")),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no .safetensors file of this")))
        << file;
  }
  EXPECT_FALSE(ParseModelIndex(absl::StrCat(R"({"weight_map": {"tensor": ")", std::string(300, 'a'),
                                            R"(.safetensors"}})"))
                   .ok());
}

TEST(ModelIndexTest, SaysWhatIsWrong) {
  for (const auto& [text, said] : std::map<std::string, std::string>{
           {"no", "no JSON object"},
           {"{}", "has no weight_map"},
           {R"({"weight_map": []})", "has no weight_map"},
           {R"({"weight_map": {}})", "has no weight_map"},
           {R"({"weight_map": {"a": 1}})", "'a' is said to be in something else"},
           {R"({"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}})",
            "'a' is there twice"},
           {R"({"metadata": {"total_size": -1}, "weight_map": {"a": "a.safetensors"}})", "no size"},
           {R"({"metadata": {"total_size": 1e300}, "weight_map": {"a": "a.safetensors"}})",
            "no size"}}) {
    EXPECT_THAT(ParseModelIndex(text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(said)));
  }
}

}  // namespace
}  // namespace lasp
