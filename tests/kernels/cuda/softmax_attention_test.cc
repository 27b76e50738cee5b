// Softmax attention on the GPU against the CPU's in fp64 from the same inputs.
#include "kernels/cuda/softmax_attention.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/cuda/document_starts.h"
#include "kernels/cuda/softmax_merge.h"
#include "kernels/softmax_attention.h"
#include "tests/kernels/cuda/bf16_values.h"
#include "tests/support/device_array.h"
#include "tests/support/gpu.h"

namespace lasp::kernels::cuda {
namespace {

using lasp::testing::DeviceArray;

// Weights are rounded before they meet values, gradients of scores before they meet queries and
// keys.
constexpr double kOutputTolerance = 3.5e-3;
constexpr double kGradientTolerance = 5e-3;

// Of each sequence's tokens; a sequence's documents start where those of the one before do, 7
// tokens later.
std::vector<uint64_t> MarksOf(const SoftmaxAttentionShape& shape,
                              const std::vector<int64_t>& document_starts) {
  const int64_t words = (shape.keys + 63) / 64;
  std::vector<uint64_t> marks(static_cast<size_t>(shape.batch * words));
  for (int64_t sequence = 0; sequence < shape.batch; ++sequence) {
    for (const int64_t start : document_starts) {
      const int64_t token = (start + 7 * sequence) % shape.keys;
      marks[static_cast<size_t>(sequence * words + token / 64)] |= uint64_t{1} << (token % 64);
    }
  }
  return marks;
}

// A layer of softmax attention: queries, keys and values as columns of a packed projection, and
// what the CPU makes of them.
struct Layer {
  explicit Layer(const SoftmaxAttentionShape& its_shape, double deviation = 1.0,
                 const std::vector<int64_t>& document_starts = {})
      : shape(its_shape),
        apart(!document_starts.empty()),
        marks(MarksOf(its_shape, document_starts)),
        q_row((its_shape.heads + 8) * its_shape.head_size),
        kv_row(2 * its_shape.kv_heads * its_shape.head_size),
        q(RandomBf16(shape.batch * shape.queries * q_row, 1, deviation)),
        kv(RandomBf16(shape.batch * shape.keys * kv_row, 2)),
        output_gradient(RandomBf16(Rows() * Width(), 3)),
        output(static_cast<size_t>(Rows() * Width())),
        log_sums(static_cast<size_t>(Rows() * shape.heads)),
        q_gradient(output.size()),
        kv_gradient(kv.size()) {
    cpu::SoftmaxAttentionOutput<double>({.shape = shape,
                                         .q = QueriesIn(q.data()),
                                         .k = KeysIn(kv.data()),
                                         .v = ValuesIn(kv.data()),
                                         .output = RowsIn(output.data()),
                                         .log_sums = log_sums.data(),
                                         .documents = Documents(marks.data())});
    cpu::SoftmaxAttentionGradients<double>({.shape = shape,
                                            .q = QueriesIn(q.data()),
                                            .k = KeysIn(kv.data()),
                                            .v = ValuesIn(kv.data()),
                                            .output = RowsIn(output.data()),
                                            .log_sums = log_sums.data(),
                                            .output_gradient = RowsIn(output_gradient.data()),
                                            .q_gradient = RowsIn(q_gradient.data()),
                                            .k_gradient = KeysIn(kv_gradient.data()),
                                            .v_gradient = ValuesIn(kv_gradient.data()),
                                            .documents = Documents(marks.data())});
  }

  SoftmaxDocuments Documents(const uint64_t* its_marks, int64_t first_key = 0) const {
    return {.marks = apart ? its_marks : nullptr,
            .words = (shape.keys + 63) / 64,
            .first_key = first_key};
  }

  int64_t Rows() const { return shape.batch * shape.queries; }

  int64_t Width() const { return shape.heads * shape.head_size; }

  // A gap lies between the queries of two tokens.
  template <typename T>
  HeadsView<T> QueriesIn(T* data) const {
    return {data, shape.queries * q_row, q_row, shape.head_size};
  }

  template <typename T>
  HeadsView<T> RowsIn(T* data) const {
    return {data, shape.queries * Width(), Width(), shape.head_size};
  }

  template <typename T>
  HeadsView<T> KeysIn(T* data, int64_t first = 0) const {
    return {data + first * kv_row, shape.keys * kv_row, kv_row, shape.head_size};
  }

  template <typename T>
  HeadsView<T> ValuesIn(T* data, int64_t first = 0) const {
    return KeysIn(data + kv_row / 2, first);
  }

  SoftmaxAttentionShape shape;
  bool apart;  // whether documents are
  std::vector<uint64_t> marks;
  int64_t q_row;
  int64_t kv_row;
  std::vector<double> q, kv, output_gradient, output, log_sums, q_gradient, kv_gradient;
};

// The same on the GPU.
struct OnGpu {
  explicit OnGpu(const Layer& layer)
      : marks(layer.marks),
        starts(layer.Rows()),
        q(layer.q),
        kv(layer.kv),
        output_gradient(layer.output_gradient),
        output(static_cast<int64_t>(layer.output.size())),
        log_sums(static_cast<int64_t>(layer.log_sums.size())),
        q_gradient(output.count()),
        kv_gradient(kv.count()) {}

  const DeviceArray<uint64_t> marks;
  const DeviceArray<int32_t> starts;
  const DeviceArray<Bf16> q, kv, output_gradient, output;
  const DeviceArray<float> log_sums;
  const DeviceArray<Bf16> q_gradient, kv_gradient;
};

class SoftmaxAttentionCuda : public lasp::testing::GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    const CudnnLoading& loading = LoadCudnn();
    if (loading.library == nullptr && !lasp::testing::GpuIsRequired()) {
      GTEST_SKIP() << loading.failure;
    }
    ASSERT_NE(loading.library, nullptr) << loading.failure;
    ASSERT_EQ(SoftmaxAttention::Create(loading.library, 0, "", &attention_), CUDNN_STATUS_SUCCESS);
  }

  DeviceArray<unsigned char> Workspace(const SoftmaxAttentionShape& shape) {
    int64_t bytes = 0;
    EXPECT_EQ(attention_->WorkspaceBytes(shape, &bytes), CUDNN_STATUS_SUCCESS);
    return DeviceArray<unsigned char>(bytes);
  }

  // Of keys from `first` on.
  static const int32_t* Starts(const Layer& layer, const OnGpu& gpu,
                               const SoftmaxAttentionShape& shape, int64_t first) {
    if (!layer.apart) {
      return nullptr;
    }
    EXPECT_EQ(FindDocumentStarts({shape.batch, shape.queries, shape.offset,
                                  layer.Documents(gpu.marks.data(), first), gpu.starts.data()},
                                 nullptr),
              cudaSuccess);
    return gpu.starts.data();
  }

  // `shape`: of this many keys, from `first` on.
  void Forward(const Layer& layer, const OnGpu& gpu, const SoftmaxAttentionShape& shape,
               int64_t first, const DeviceArray<unsigned char>& workspace,
               const DeviceArray<Bf16>& output, const DeviceArray<float>& log_sums) {
    ASSERT_EQ(attention_->Output(
                  {shape, layer.QueriesIn(gpu.q.data()), layer.KeysIn(gpu.kv.data(), first),
                   layer.ValuesIn(gpu.kv.data(), first), layer.RowsIn(output.data()),
                   log_sums.data(), Starts(layer, gpu, shape, first)},
                  {workspace.data(), workspace.bytes()}, nullptr),
              CUDNN_STATUS_SUCCESS);
  }

  void Backward(const Layer& layer, const OnGpu& gpu, const SoftmaxAttentionShape& shape,
                int64_t first, const DeviceArray<unsigned char>& workspace,
                const DeviceArray<Bf16>& q_gradient) {
    ASSERT_EQ(attention_->Gradients(
                  {shape, layer.QueriesIn(gpu.q.data()), layer.KeysIn(gpu.kv.data(), first),
                   layer.ValuesIn(gpu.kv.data(), first), layer.RowsIn(gpu.output.data()),
                   gpu.log_sums.data(), layer.RowsIn(gpu.output_gradient.data()),
                   layer.RowsIn(q_gradient.data()), layer.KeysIn(gpu.kv_gradient.data(), first),
                   layer.ValuesIn(gpu.kv_gradient.data(), first), Starts(layer, gpu, shape, first)},
                  {workspace.data(), workspace.bytes()}, nullptr),
              CUDNN_STATUS_SUCCESS);
  }

  static void ExpectTheCpus(const Layer& layer, const OnGpu& gpu) {
    EXPECT_LE(RelativeRms(gpu.output.Values(), layer.output), kOutputTolerance);
    EXPECT_LE(RelativeRms(gpu.log_sums.Values(), layer.log_sums), 1e-5);
    const auto half = [&](const std::vector<double>& values, int64_t first) {
      return ColumnsOf(values, layer.kv_row, first, layer.kv_row / 2);
    };
    const std::vector<double> gradient = gpu.kv_gradient.Values();
    // Where there is one key these are zero but for roundings; among few, roundings cancel less.
    if (layer.shape.keys > 1) {
      const double tolerance = layer.shape.keys < 16 ? 2 * kGradientTolerance : kGradientTolerance;
      EXPECT_LE(RelativeRms(gpu.q_gradient.Values(), layer.q_gradient), tolerance);
      EXPECT_LE(RelativeRms(half(gradient, 0), half(layer.kv_gradient, 0)), tolerance);
    }
    EXPECT_LE(
        RelativeRms(half(gradient, layer.kv_row / 2), half(layer.kv_gradient, layer.kv_row / 2)),
        kGradientTolerance);
  }

  void Check(const SoftmaxAttentionShape& shape, const std::vector<int64_t>& starts = {}) {
    SCOPED_TRACE(::testing::Message()
                 << shape.batch << " x " << shape.queries << " queries, " << shape.keys
                 << " keys from " << shape.offset << ", " << shape.heads << "/" << shape.kv_heads
                 << " of " << shape.head_size);
    const Layer layer(shape, 1, starts);
    const OnGpu gpu(layer);
    const auto workspace = Workspace(shape);
    Forward(layer, gpu, shape, 0, workspace, gpu.output, gpu.log_sums);
    Backward(layer, gpu, shape, 0, workspace, gpu.q_gradient);
    ExpectTheCpus(layer, gpu);
  }

  // So much for heads of 128, and groups of two.
  static SoftmaxAttentionShape Shape(int64_t queries, int64_t keys, int64_t offset,
                                     int64_t size = 128, int64_t kv_heads = 2) {
    return {.batch = 2,
            .queries = queries,
            .keys = keys,
            .heads = 4,
            .kv_heads = kv_heads,
            .head_size = size,
            .offset = offset};
  }

  std::unique_ptr<SoftmaxAttention> attention_;
};

TEST_F(SoftmaxAttentionCuda, IsTheCpusOfAWholeSequence) {
  for (const int64_t tokens : {1, 2, 63, 64, 65, 130, 200, 1000}) {
    Check(Shape(tokens, tokens, 0));
  }
}

TEST_F(SoftmaxAttentionCuda, IsTheCpusOfEverySizeAndGroupOfHeads) {
  for (const int64_t size : {8, 32, 64, 72, 96}) {
    Check(Shape(200, 200, 0, size));
  }
  for (const int64_t kv_heads : {1, 4}) {
    Check(Shape(200, 200, 0, 64, kv_heads));
  }
}

// As a later rank sees keys that all have gathered, and those that a ring brings.
TEST_F(SoftmaxAttentionCuda, IsTheCpusOfSlicesOfKeys) {
  for (const int64_t tokens : {1, 65, 200}) {
    Check(Shape(tokens, 2 * tokens, tokens));
    Check(Shape(tokens, 4 * tokens, 3 * tokens, 64));
    Check(Shape(tokens, tokens, tokens));
    Check(Shape(tokens, tokens, 3 * tokens, 64));
  }
}

// So long that the gradient of q is summed in the order in which its parts come.
TEST_F(SoftmaxAttentionCuda, IsTheCpusOfLongSequences) {
  for (const auto& [queries, keys, kv_heads, size] :
       {std::array<int64_t, 4>{3072, 3072, 16, 128}, {3072, 3072, 4, 64}, {1024, 8704, 4, 32}}) {
    Check({.batch = 1,
           .queries = queries,
           .keys = keys,
           .heads = 16,
           .kv_heads = kv_heads,
           .head_size = size,
           .offset = keys - queries});
  }
}

TEST_F(SoftmaxAttentionCuda, KeepsDocumentsApart) {
  for (const int64_t size : {64, 72, 128}) {
    Check(Shape(65, 65, 0, size), {64});
    Check(Shape(200, 200, 0, size), {1, 2, 63, 64, 130});
    Check(Shape(1000, 1000, 0, size, 4), {63, 65, 500, 960});
    // Of a later rank: one begun before it, some of its own.
    Check(Shape(200, 600, 400, size), {100, 350, 450, 580});
    Check(Shape(200, 600, 400, size), {400});
  }
  // In whose backward the parts of q's gradient are added as they come.
  SoftmaxAttentionShape large = Shape(3072, 3072, 0);
  large.heads = 16;
  Check(large, {500, 2900});
}

TEST_F(SoftmaxAttentionCuda, FindsWhereDocumentsStart) {
  for (const auto& [tokens, first_key, offset] :
       {std::array<int64_t, 3>{1, 0, 0}, {100'000, 0, 0}, {1000, 70'000, 5'000}, {77, 99, 64}}) {
    for (const std::vector<int64_t>& starts :
         {std::vector<int64_t>{}, {0}, {3, 64, 127, 128, 50'000, 75'500, 75'501}}) {
      SoftmaxAttentionShape shape = Shape(tokens, 100'000, offset);
      const std::vector<uint64_t> marks = MarksOf(shape, starts);
      const DeviceArray<uint64_t> marks_d(marks);
      const DeviceArray<int32_t> found(shape.batch * tokens);
      const int64_t words = static_cast<int64_t>(marks.size()) / shape.batch;
      ASSERT_EQ(FindDocumentStarts(
                    {shape.batch, tokens, offset, {marks_d.data(), words, first_key}, found.data()},
                    nullptr),
                cudaSuccess);
      std::vector<int32_t> expected;
      for (int64_t sequence = 0; sequence < shape.batch; ++sequence) {
        int64_t start = 0;
        for (int64_t token = 0; token < first_key + offset + tokens; ++token) {
          const uint64_t word = marks[static_cast<size_t>(sequence * words + token / 64)];
          start = (word >> (token % 64) & 1) != 0 ? token : start;
          if (token >= first_key + offset) {
            expected.push_back(static_cast<int32_t>(start - first_key));
          }
        }
      }
      EXPECT_EQ(found.Download(0, found.count()), expected);
    }
  }
}

TEST_F(SoftmaxAttentionCuda, GivesTheSameBitsTwice) {
  for (const SoftmaxAttentionShape& shape :
       {Shape(1000, 1000, 0), Shape(500, 1500, 1000), Shape(500, 500, 500)}) {
    const Layer layer(shape);
    const OnGpu first(layer);
    const OnGpu second(layer);
    const auto workspace = Workspace(shape);
    for (const OnGpu* const gpu : {&first, &second}) {
      Forward(layer, *gpu, shape, 0, workspace, gpu->output, gpu->log_sums);
      Backward(layer, *gpu, shape, 0, workspace, gpu->q_gradient);
    }
    EXPECT_EQ(second.output.Values(), first.output.Values());
    EXPECT_EQ(second.log_sums.Values(), first.log_sums.Values());
    EXPECT_EQ(second.q_gradient.Values(), first.q_gradient.Values());
    EXPECT_EQ(second.kv_gradient.Values(), first.kv_gradient.Values());
  }
}

// Scores of some thousands: all weight lies on one key.
TEST_F(SoftmaxAttentionCuda, LargeScoresOverflowNothing) {
  const SoftmaxAttentionShape shape = Shape(130, 130, 0);
  const Layer layer(shape, 1024);
  const OnGpu gpu(layer);
  Forward(layer, gpu, shape, 0, Workspace(shape), gpu.output, gpu.log_sums);
  EXPECT_LE(RelativeRms(gpu.output.Values(), layer.output), kOutputTolerance);
}

// The queries' own keys first, then those from before, as a ring brings them.
TEST_F(SoftmaxAttentionCuda, SlicesOfKeysMergeIntoTheWhole) {
  for (const auto& [slice, size, start] : {std::array<int64_t, 3>{1, 64, 0},
                                           {65, 72, 0},
                                           {200, 128, 0},
                                           {65, 64, 64},
                                           {65, 72, 130},
                                           {200, 128, 450}}) {
    SCOPED_TRACE(::testing::Message() << slice << " tokens, " << size << ", " << start);
    constexpr int64_t kSlices = 3;
    SoftmaxAttentionShape whole = Shape(slice, kSlices * slice, (kSlices - 1) * slice, size);
    whole.batch = 1;
    // From the second on, queries see none of the keys before it; of earlier slices some nothing.
    const Layer layer(whole, 1,
                      start == 0 ? std::vector<int64_t>{} : std::vector{start / 3, start});
    const OnGpu gpu(layer);
    const DeviceArray<Bf16> part(gpu.output.count());
    const DeviceArray<float> part_sums(gpu.log_sums.count());
    SoftmaxAttentionShape of_slice = whole;
    of_slice.keys = slice;
    for (int64_t before = 0; before < kSlices; ++before) {
      of_slice.offset = before * slice;
      const int64_t first = (kSlices - 1 - before) * slice;
      Forward(layer, gpu, of_slice, first, Workspace(of_slice), before == 0 ? gpu.output : part,
              before == 0 ? gpu.log_sums : part_sums);
      if (before > 0) {
        ASSERT_EQ(MergeSoftmaxOutput(
                      {1, slice, whole.heads, size, layer.RowsIn(part.data()), part_sums.data(),
                       layer.RowsIn(gpu.output.data()), gpu.log_sums.data()},
                      nullptr),
                  cudaSuccess);
      }
    }
    for (int64_t before = 0; before < kSlices; ++before) {
      of_slice.offset = before * slice;
      const int64_t first = (kSlices - 1 - before) * slice;
      Backward(layer, gpu, of_slice, first, Workspace(of_slice),
               before == 0 ? gpu.q_gradient : part);
      if (before > 0) {
        ASSERT_EQ(AddRows({slice, layer.Width(), part.data(), layer.Width(), gpu.q_gradient.data(),
                           layer.Width()},
                          nullptr),
                  cudaSuccess);
      }
    }
    ExpectTheCpus(layer, gpu);
  }
}

}  // namespace
}  // namespace lasp::kernels::cuda
