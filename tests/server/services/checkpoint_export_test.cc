// A checkpoint's parameters as a stream: all of them, from any place on, whole or with the reason.
#include "server/checkpoint_export.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "proto/checkpoint/block_digests.h"
#include "proto/checkpoint/manifest.h"
#include "tests/server/services/stream_reader.h"
#include "tests/server/services/worker_plane_fixture.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::lasp::testing::TempDirectory;
using ::testing::HasSubstr;

// More than one message.
constexpr int kLargeCount = 300'000;
constexpr int kSmallCount = 6;

class CheckpointExportTest : public WorkerPlaneFixture {
 protected:
  CheckpointExportTest() {
    std::iota(values_.begin(), values_.end(), 1.0F);
    agent_ = std::make_unique<FakeAgent>(keeping_.server().addresses().worker_address, "w1", 1);
    v1::Hello hello = agent_->NewHello();
    hello.set_newest_protocol_version(kCheckpointProtocol);
    agent_->SendHello(hello);
    EXPECT_TRUE(agent_->Await(v1::ConnectResponse::kWelcome).has_value());
    LASP_EXPECT_OK(keeping_.Create("job"));
    const auto assigned = agent_->Await(v1::ConnectResponse::kAssignment);
    if (!assigned.has_value()) {
      ADD_FAILURE() << "no assignment";
      return;
    }
    Connect(agent_.get(), {assigned->assignment().fence()});
    WriteShard(assigned->assignment());
    AwaitCheckpoint(v1::Checkpoint::STATE_COMMITTED);
  }

  ServerOptions Options() const {
    ServerOptions options;
    options.core.checkpoint_root = root_.path();
    return options;
  }

  // `small`, `large` and a moment of `small`, one behind the other.
  void WriteShard(const v1::Assignment& assignment) {
    const std::string folder =
        absl::StrCat(assignment.checkpoint_folder(), "/",
                     CheckpointFolderName(5, assignment.fence().generation()));
    std::filesystem::create_directories(root_.Join(folder));
    path_ = root_.Write(
        folder + "/" + ShardFileName(0),
        std::string(reinterpret_cast<const char*>(values_.data()), values_.size() * sizeof(float)));
    v1::ConnectRequest request;
    v1::ShardWritten& written = *request.mutable_shard_written();
    *written.mutable_fence() = assignment.fence();
    written.set_step(5);
    written.mutable_state()->set_step(5);
    v1::CheckpointShard& shard = *written.mutable_shard();
    shard.set_file(ShardFileName(0));
    shard.set_size_bytes(static_cast<int64_t>(values_.size() * sizeof(float)));
    shard.set_block_bytes(kCheckpointBlockBytes);
    BlockDigester digester;
    digester.Add(values_.data(), values_.size() * sizeof(float));
    shard.set_block_digests(digester.Finish());
    int64_t begin = 0;
    for (const auto& [name, count] : std::vector<std::pair<std::string, int64_t>>{
             {"small", kSmallCount},
             {"large", kLargeCount},
             {"optimizer.first_moment.small", kSmallCount}}) {
      v1::CheckpointTensor& tensor = *written.add_tensors();
      tensor.set_name(name);
      tensor.set_dtype("F32");
      tensor.add_shape(count / 2);
      tensor.add_shape(2);
      v1::TensorExtent& extent = *shard.add_extents();
      extent.set_tensor(name);
      extent.set_count(count);
      extent.set_offset_bytes(begin * static_cast<int64_t>(sizeof(float)));
      begin += count;
    }
    EXPECT_TRUE(agent_->AwaitAck(agent_->Send(std::move(request))));
  }

  void AwaitCheckpoint(v1::Checkpoint::State state) {
    v1::GetCheckpointRequest request;
    request.set_name(name_);
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    absl::StatusOr<v1::Checkpoint> now;
    do {
      now = keeping_.Call(keeping_.checkpoints.get(), &v1::CheckpointService::Stub::GetCheckpoint,
                          request);
      absl::SleepFor(absl::Milliseconds(20));
    } while ((!now.ok() || now->state() != state) && absl::Now() < deadline);
    LASP_ASSERT_OK(now);
    EXPECT_EQ(now->state(), state) << now->ShortDebugString();
  }

  v1::ExportCheckpointRequest Request(int first_tensor = 0, int64_t first_element = 0) const {
    v1::ExportCheckpointRequest request;
    request.set_name(name_);
    request.set_first_tensor(first_tensor);
    request.set_first_element(first_element);
    return request;
  }

  // The elements of a whole stream, in their order, and how it ended.
  absl::Status Export(const v1::ExportCheckpointRequest& request, v1::ExportedModel* head,
                      std::vector<float>* elements) {
    StreamReader<v1::ExportCheckpointResponse> reader([&](grpc::ClientContext* context) {
      return keeping_.checkpoints->ExportCheckpoint(context, request);
    });
    while (const auto response = reader.Next()) {
      if (response->has_head()) {
        *head = response->head();
        continue;
      }
      const v1::ExportedElements& part = response->elements();
      // Of the file: the tensors lie in it as they come.
      const int64_t begin = part.begin() + (part.tensor() == 0 ? 0 : kSmallCount);
      EXPECT_EQ(begin, static_cast<int64_t>(elements->size()) + first_);
      elements->resize(elements->size() + part.data().size() / sizeof(float));
      std::memcpy(elements->data() + begin - first_, part.data().data(), part.data().size());
    }
    return reader.AwaitEnd();
  }

  const TempDirectory root_;
  RunningServer keeping_{Options()};
  const std::string name_ = RunningServer::NameOf("job") + "/checkpoints/5";
  std::vector<float> values_ = std::vector<float>(2 * kSmallCount + kLargeCount);
  std::unique_ptr<FakeAgent> agent_;
  std::string path_;
  // Where an export begins in the file, in elements.
  int64_t first_ = 0;
};

TEST_F(CheckpointExportTest, GivesTheParametersAndNoMoments) {
  for (const auto& [tensor, element, first] :
       std::vector<std::tuple<int, int64_t, int64_t>>{{0, 0, 0},
                                                      {0, 4, 4},
                                                      {0, kSmallCount, kSmallCount},
                                                      {1, 262'145, kSmallCount + 262'145},
                                                      {1, kLargeCount, kSmallCount + kLargeCount},
                                                      {2, 0, kSmallCount + kLargeCount}}) {
    v1::ExportedModel head;
    std::vector<float> elements;
    first_ = first;
    LASP_ASSERT_OK(Export(Request(tensor, element), &head, &elements));
    ASSERT_EQ(head.tensors_size(), 2);
    EXPECT_EQ(head.tensors(1).name(), "large");
    EXPECT_EQ(head.model().hidden_size(), 64);
    EXPECT_EQ(head.checkpoint().step(), 5);
    EXPECT_EQ(elements, std::vector<float>(values_.begin() + first, values_.end() - kSmallCount));
  }
}

TEST_F(CheckpointExportTest, RefusesWhatIsNotThere) {
  v1::ExportedModel head;
  std::vector<float> elements;
  for (const auto& request :
       {Request(3), Request(2, 1), Request(0, kSmallCount + 1), Request(-1), Request(0, -1)}) {
    EXPECT_THAT(Export(request, &head, &elements),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("first_tensor")));
  }
  v1::ExportCheckpointRequest other = Request();
  other.set_name(RunningServer::NameOf("job") + "/checkpoints/6");
  EXPECT_THAT(Export(other, &head, &elements),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("there is no")));
}

TEST_F(CheckpointExportTest, NoticesDamageAndHasItMarked) {
  {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(100);
    file.put('\x55');
  }
  v1::ExportedModel head;
  std::vector<float> elements;
  const absl::Status status = Export(Request(), &head, &elements);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("damaged in block 0")));
  EXPECT_EQ(ErrorReason(status), "CHECKPOINT_CORRUPT");
  EXPECT_TRUE(elements.empty());
  AwaitCheckpoint(v1::Checkpoint::STATE_CORRUPT);
  EXPECT_THAT(Export(Request(), &head, &elements),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("only committed ones")));
}

TEST(ExportPlaceTest, ThereAreEight) {
  const auto count = std::make_shared<std::atomic<int>>(0);
  std::vector<std::unique_ptr<ExportPlace>> places;
  places.reserve(8);
  for (int i = 0; i < 8; ++i) {
    auto place = ExportPlace::Take(count);
    LASP_ASSERT_OK(place);
    places.push_back(*std::move(place));
  }
  const absl::Status status = ExportPlace::Take(count).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(ErrorReason(status), "TOO_MANY_EXPORTS");
  places.pop_back();
  LASP_EXPECT_OK(ExportPlace::Take(count));
}

}  // namespace
}  // namespace lasp::server
