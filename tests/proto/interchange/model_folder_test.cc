// What is written is read back, and of others' folders nothing is believed.
#include "proto/interchange/model_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "proto/checkpoint/safetensors_header.h"
#include "proto/interchange/model_config_file.h"
#include "proto/interchange/model_index.h"
#include "tests/proto/interchange/model_fixture.h"

namespace lasp {
namespace {

using ::lasp::testing::StatusIs;
using ::lasp::testing::TempDirectory;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ModelFolderTest : public ::testing::Test {
 protected:
  absl::StatusOr<ModelFolder> Open() { return ModelFolder::Open(FilesOfFolder(path_)); }

  void ExpectRefused(const std::string& said,
                     absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
    EXPECT_THAT(Open(), StatusIs(code, HasSubstr(said)));
  }

  // The small model in one file, of which `change` may change the header, and the data's size.
  void WriteFile(const std::function<void(SafetensorsHeader*)>& change, int64_t extra_bytes = 0) {
    std::filesystem::create_directories(path_);
    SafetensorsHeader header;
    int64_t offset = 0;
    for (const ModelTensor& tensor : ModelTensors(SmallModel())) {
      header.tensors.push_back(
          {tensor.name, "F32", tensor.shape, offset, offset + 4 * tensor.count()});
      offset += 4 * tensor.count();
    }
    change(&header);
    root_.Write("model/model.safetensors",
                PrintSafetensorsHeader(header) +
                    std::string(static_cast<size_t>(offset + extra_bytes), '\0'));
    root_.Write("model/config.json", ModelConfigText(SmallModel(), ElementType::kFloat32));
  }

  const TempDirectory root_;
  const std::string path_ = root_.Join("model");
};

TEST_F(ModelFolderTest, HoldsEveryElementThatWasWritten) {
  for (const bool coarse : {false, true}) {
    for (const bool tied : {false, true}) {
      for (const int64_t max_file_bytes : {int64_t{1} << 40, int64_t{900}, int64_t{1}}) {
        std::filesystem::remove_all(path_);
        const lasp::v1::ModelSpec model = SmallModel(tied, /*learned=*/tied);
        WriteModel({.folder = path_,
                    .model = model,
                    .type = coarse ? ElementType::kBfloat16 : ElementType::kFloat32,
                    .max_file_bytes = max_file_bytes},
                   coarse);
        const auto folder = Open();
        LASP_ASSERT_OK(folder);
        EXPECT_EQ(folder->model().SerializeAsString(), model.SerializeAsString());
        EXPECT_EQ(folder->CheckFixedTheta().ok(), !tied);
        const std::vector<ModelTensor> tensors = ModelTensors(model);
        for (size_t t = 0; t < tensors.size(); ++t) {
          std::vector<float> values(static_cast<size_t>(tensors[t].count()));
          LASP_ASSERT_OK(folder->Read(tensors[t].name, 0, tensors[t].count(), values.data()));
          for (size_t i = 0; i < values.size(); ++i) {
            const bool fixed = tensors[t].name == kThetaTensor && !tied;
            ASSERT_EQ(values[i],
                      fixed ? FixedTheta(model)[i] : NumberOf(t, static_cast<int64_t>(i), coarse))
                << tensors[t].name << " " << i;
          }
          float last = 0;
          LASP_ASSERT_OK(folder->Read(tensors[t].name, tensors[t].count() - 1, 1, &last));
          EXPECT_EQ(last, values.back());
          EXPECT_FALSE(folder->Read(tensors[t].name, tensors[t].count(), 1, &last).ok());
        }
      }
    }
  }
}

TEST_F(ModelFolderTest, IsSplitAtTheLimitWithAnIndex) {
  const lasp::v1::ModelSpec model = SmallModel();
  WriteModel({.folder = path_, .model = model, .max_file_bytes = 1500});
  const auto index = ParseModelIndex(ContentOf(path_ + "/" + kModelIndexFile));
  LASP_ASSERT_OK(index);
  int64_t total = 0;
  std::map<std::string, int64_t> bytes;
  for (const ModelTensor& tensor : ModelTensors(model)) {
    total += 4 * tensor.count();
    bytes[index->files.at(tensor.name)] += 4 * tensor.count();
  }
  EXPECT_EQ(index->total_size, total);
  EXPECT_GT(bytes.size(), 2U);
  for (const auto& [file, size] : bytes) {
    EXPECT_LE(size, 1500) << file;
  }
  std::filesystem::remove_all(path_);
  WriteModel({.folder = path_, .model = model, .max_file_bytes = total});
  EXPECT_THAT(NamesIn(path_), ElementsAre("config.json", "model.safetensors"));
}

TEST_F(ModelFolderTest, IsThereWholeOrNotAtAll) {
  {
    auto writer = ModelFolderWriter::Create({.folder = path_, .model = SmallModel()});
    LASP_ASSERT_OK(writer);
    const std::vector<float> values(10, 1.0F);
    LASP_ASSERT_OK((*writer)->Add("model.embed_tokens.weight", 0, values));
    EXPECT_EQ(NamesIn(root_.path()).size(), 1U);
    EXPECT_THAT(NamesIn(root_.path())[0], HasSubstr("model.partial-"));
    EXPECT_THAT((*writer)->Add("model.embed_tokens.weight", 20, values),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("where element 10 of")));
    EXPECT_THAT((*writer)->Add("lm_head.weight", 0, values),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is due")));
    EXPECT_THAT((*writer)->Add("model.embed_tokens.weight", 10, std::vector<float>(100)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is due, of 88")));
    EXPECT_THAT((*writer)->Finish(), StatusIs(absl::StatusCode::kInvalidArgument,
                                              HasSubstr("the weights end before element 10")));
  }
  EXPECT_TRUE(NamesIn(root_.path()).empty()) << "what was broken off is gone";
}

TEST_F(ModelFolderTest, TakesNoFolderThatHoldsSomething) {
  std::filesystem::create_directory(path_);
  WriteModel({.folder = path_ + "/", .model = SmallModel()});
  EXPECT_THAT(ModelFolderWriter::Create({.folder = path_, .model = SmallModel()}),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("not empty")));
  EXPECT_THAT(ModelFolderWriter::Create({.folder = path_ + "/config.json", .model = SmallModel()}),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("no folder")));
  EXPECT_THAT(ModelFolderWriter::Create({.folder = root_.Join("a/b"), .model = SmallModel()}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("making")));
  // What came there meanwhile is not lost.
  const std::string late = root_.Join("late");
  auto writer = ModelFolderWriter::Create({.folder = late, .model = SmallModel()});
  LASP_ASSERT_OK(writer);
  LASP_ASSERT_OK(AddAll(SmallModel(), false, 100, writer->get()));
  std::filesystem::create_directory(late);
  root_.Write("late/mine", "x");
  EXPECT_FALSE((*writer)->Finish().ok());
  EXPECT_EQ(ContentOf(late + "/mine"), "x");
}

TEST_F(ModelFolderTest, RefusesHeadersThatLie) {
  WriteFile([](SafetensorsHeader*) {});
  LASP_EXPECT_OK(Open());
  WriteFile([](SafetensorsHeader* header) { header->tensors[1].begin -= 4; });
  ExpectRefused("has 1028 bytes; its shape asks for");
  WriteFile([](SafetensorsHeader* header) {
    header->tensors[2].begin = header->tensors[1].begin;
    header->tensors[2].end = header->tensors[2].begin + int64_t{4} * 64;
  });
  ExpectRefused("within what goes to byte");
  WriteFile(
      [](SafetensorsHeader* header) {
        for (size_t t = 3; t < header->tensors.size(); ++t) {
          header->tensors[t].begin += 8;
          header->tensors[t].end += 8;
        }
      },
      8);
  ExpectRefused("behind a hole");
  WriteFile([](SafetensorsHeader*) {}, 4);
  ExpectRefused("belong to no tensor");
  WriteFile([](SafetensorsHeader*) {}, -4);
  ExpectRefused("of 4444");
  WriteFile([](SafetensorsHeader* header) {
    header->tensors[0].shape = {int64_t{1} << 40, int64_t{1} << 40};
  });
  ExpectRefused("too many elements");
  WriteFile([](SafetensorsHeader* header) { header->tensors[0].end = int64_t{1} << 52; });
  ExpectRefused("lies from byte 0 to");
  WriteFile([](SafetensorsHeader* header) { header->tensors[0].dtype = "F33"; });
  ExpectRefused("has the dtype 'F33'");
}

TEST_F(ModelFolderTest, RefusesOtherTensors) {
  WriteFile([](SafetensorsHeader* header) {
    std::swap(header->tensors[0].shape[0], header->tensors[0].shape[1]);
  });
  ExpectRefused("model.embed_tokens.weight is [8, 11]; config.json asks for [11, 8]");
  WriteFile([](SafetensorsHeader* header) { header->tensors[0].name = "model.embed.weight"; });
  ExpectRefused("'model.embed.weight' is no tensor of the model");
  WriteFile([](SafetensorsHeader* header) { header->tensors[0].dtype = "I32"; });
  ExpectRefused("model.embed_tokens.weight is 'I32', not F32, BF16 or F16");
  WriteFile([](SafetensorsHeader* header) { header->tensors.pop_back(); }, int64_t{-4} * 88);
  ExpectRefused("no file holds lm_head.weight");
  root_.Write("model/config.json", ModelConfigText(SmallModel(true), ElementType::kFloat32));
  LASP_EXPECT_OK(Open());
  WriteFile([](SafetensorsHeader*) {});
  root_.Write("model/config.json", ModelConfigText(SmallModel(true), ElementType::kFloat32));
  ExpectRefused("'lm_head.weight' is no tensor of the model");
}

TEST_F(ModelFolderTest, RefusesBrokenFiles) {
  WriteFile([](SafetensorsHeader*) {});
  const std::string whole = ContentOf(path_ + "/model.safetensors");
  for (const size_t size : {size_t{0}, size_t{3}, size_t{8}, size_t{100}, whole.size() - 1}) {
    root_.Write("model/model.safetensors", whole.substr(0, size));
    ExpectRefused("model.safetensors: not a safetensors file");
  }
  root_.Write("model/model.safetensors", std::string(7, '\xff') + '\x7f' + whole.substr(8));
  ExpectRefused("a header of");
  root_.Write("model/config.json", "{}");
  ExpectRefused("config.json: has no decoder_layers");
  std::filesystem::remove(path_ + "/config.json");
  ExpectRefused("config.json", absl::StatusCode::kNotFound);
  WriteFile([](SafetensorsHeader*) {});
  std::filesystem::remove(path_ + "/model.safetensors");
  ExpectRefused("model.safetensors", absl::StatusCode::kNotFound);
  ASSERT_EQ(mkfifo((path_ + "/model.safetensors").c_str(), 0600), 0);
  ExpectRefused("not a regular file");
}

TEST_F(ModelFolderTest, RefusesAnIndexThatLies) {
  WriteModel({.folder = path_, .model = SmallModel(), .max_file_bytes = 1500});
  const std::string path = "model/model.safetensors.index.json";
  const auto honest = ParseModelIndex(ContentOf(root_.Join(path)));
  LASP_ASSERT_OK(honest);
  ModelIndex index = *honest;
  index.files["lm_head.weight"] = "model-99999-of-99999.safetensors";
  root_.Write(path, ModelIndexText(index));
  ExpectRefused("is not said to be here", absl::StatusCode::kInvalidArgument);
  index = *honest;
  index.files["model.layers.0.token_mixer.out_proj.weight"] = honest->files.at("lm_head.weight");
  root_.Write(path, ModelIndexText(index));
  ExpectRefused("is not said to be here by model.safetensors.index.json");
  index = *honest;
  index.files["model.extra"] = honest->files.at("lm_head.weight");
  root_.Write(path, ModelIndexText(index));
  ExpectRefused("does not hold 'model.extra'");
  root_.Write(path, ModelIndexText(*honest));
  std::filesystem::remove(path_ + "/" + honest->files.at("lm_head.weight"));
  ExpectRefused(honest->files.at("lm_head.weight"), absl::StatusCode::kNotFound);
  index = *honest;
  for (int i = 0; i < 600; ++i) {
    index.files[absl::StrCat("t", i)] = absl::StrCat("f", i, ".safetensors");
  }
  root_.Write(path, ModelIndexText(index));
  ExpectRefused("files; at most 512");
}

TEST_F(ModelFolderTest, NoticesAFileThatShrinksLater) {
  WriteFile([](SafetensorsHeader*) {});
  const auto folder = Open();
  LASP_ASSERT_OK(folder);
  std::filesystem::resize_file(path_ + "/model.safetensors", 2000);
  float last = 0;
  EXPECT_THAT(folder->Read("lm_head.weight", 87, 1, &last),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("is truncated")));
}

TEST_F(ModelFolderTest, TellsFixedFrequenciesFromOthers) {
  WriteFile([](SafetensorsHeader*) {});
  const auto folder = Open();
  LASP_ASSERT_OK(folder);
  EXPECT_THAT(folder->CheckFixedTheta(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("lrpe_theta LEARNED")));
}

TEST_F(ModelFolderTest, IsOpenedBeneathTheRootsAlone) {
  WriteModel({.folder = path_, .model = SmallModel(), .max_file_bytes = 1500});
  const auto open = [&](const std::string& path, const std::string& root) {
    return ModelFolder::Open(FilesBeneathRoots(path, {root})).status();
  };
  LASP_EXPECT_OK(open("model", root_.path()));
  LASP_EXPECT_OK(open("model/", root_.path()));
  LASP_EXPECT_OK(open(path_, root_.path()));
  EXPECT_THAT(open(path_, "/usr"), StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("")));
  EXPECT_THAT(open("../model", path_),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("")));
  // A link inside that leads out.
  const TempDirectory outside;
  const auto index = ParseModelIndex(ContentOf(path_ + "/" + kModelIndexFile));
  LASP_ASSERT_OK(index);
  const std::string name = index->files.at("lm_head.weight");
  std::filesystem::rename(path_ + "/" + name, outside.Join("weights"));
  std::filesystem::create_symlink(outside.Join("weights"), path_ + "/" + name);
  EXPECT_THAT(open("model", root_.path()),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("leads out of")));
}

}  // namespace
}  // namespace lasp
