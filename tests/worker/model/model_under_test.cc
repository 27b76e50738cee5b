#include "tests/worker/model/model_under_test.h"

#include <algorithm>
#include <random>

#include "proto/rpc/status_macros.h"
#include "worker/data/mark_documents.h"
#include "worker/model/parameter_shards.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {

absl::StatusOr<std::unique_ptr<ModelUnderTest>> ModelUnderTest::Create(const ModelConfig& config,
                                                                       const MicroBatchShape& shape,
                                                                       LocalRank& rank,
                                                                       const TestedPlan& plan) {
  auto model = std::unique_ptr<ModelUnderTest>(new ModelUnderTest(config, shape, rank, plan));
  Arena measured;
  LASP_RETURN_IF_ERROR(model->TakeMemory(measured));
  LASP_ASSIGN_OR_RETURN(model->arena_, Arena::Create(*rank.backend, measured.used_bytes()));
  LASP_RETURN_IF_ERROR(model->TakeMemory(model->arena_));
  return model;
}

absl::Status ModelUnderTest::TakeMemory(Arena& arena) {
  // Small buckets, so that reduction and backward interleave, but no thousands of them.
  const int64_t bucket_elements = std::max<int64_t>(100, own_layout_.count() / 24);
  parallel_ = CreateDdp({.backend = rank_.backend,
                         .world = rank_.world,
                         .shards = rank_.shards,
                         .replicas = rank_.dp,
                         .units = own_layout_.units()},
                        bucket_elements, arena);
  loss_ = arena.Take(MemoryUse::kWorkspace, DType::kFloat64, 1, 1);
  tokens_ = {.ids = arena.Take(MemoryUse::kWorkspace, DType::kInt32, shape_.rows(), 1),
             .labels = arena.Take(MemoryUse::kWorkspace, DType::kInt32, shape_.rows(), 1)};
  if (!plan_.documents.empty()) {
    document_marks_ = arena.Take(MemoryUse::kWorkspace, DType::kInt32, 1, 2 * MarksOf(0).words());
  }
  attention_ = plan_.method.create(rank_.backend, rank_.sp);
  model_.reset();
  LASP_ASSIGN_OR_RETURN(activations_, ActivationMemory::Take({.recomputation = plan_.recomputation,
                                                              .offloads = plan_.offloads,
                                                              .streams = plan_.stream_length > 0,
                                                              .chunks = chunks_.count()},
                                                             own_config_, shape_, rank_.backend,
                                                             *attention_, rank_.wrap, arena));
  model_ = std::make_unique<TransNormer>(
      own_config_, shape_, activations_.options(), &own_layout_,
      ParameterTensors{.parallel = parallel_.get(),
                       .learned_theta = own_layout_.Bind(parallel_->masters()).blocks[0].theta},
      rank_.backend, attention_.get(), arena);
  return absl::OkStatus();
}

std::vector<double> ModelUnderTest::OwnOf(const std::vector<double>& whole) const {
  std::vector<double> own(static_cast<size_t>(own_layout_.count()));
  for (const TensorShare& share :
       ParameterShards(own_config_).PlacesOf({.begin = 0, .count = own_layout_.count()})) {
    std::copy_n(whole.begin() + share.begin, share.count, own.begin() + share.local);
  }
  return own;
}

absl::StatusOr<std::vector<double>> ModelUnderTest::WholeOf(const std::vector<double>& own) {
  const auto count = static_cast<size_t>(layout_.count());
  // The sums over the ranks, and behind them how many ranks have each element.
  std::vector<double> sums(2 * count);
  for (const TensorShare& share :
       ParameterShards(own_config_).PlacesOf({.begin = 0, .count = own_layout_.count()})) {
    std::copy_n(own.begin() + share.local, share.count, sums.begin() + share.begin);
    std::fill_n(sums.begin() + static_cast<std::ptrdiff_t>(count) + share.begin, share.count, 1);
  }
  LASP_ASSIGN_OR_RETURN(const auto memory, rank_.backend->Allocate(
                                               static_cast<int64_t>(sums.size() * sizeof(double))));
  const auto columns = static_cast<int64_t>(sums.size());
  const Tensor tensor{memory->data(), DType::kFloat64, 1, columns, columns};
  rank_.backend->CopyFromHost(sums.data(), tensor);
  LASP_RETURN_IF_ERROR(rank_.world->AllReduceSum(tensor).Wait());
  rank_.backend->CopyToHost(tensor, sums.data());
  std::vector<double> whole(count);
  for (size_t i = 0; i < count; ++i) {
    whole[i] = sums[i] / sums[count + i];
  }
  return whole;
}

void ModelUnderTest::SetParameters(const std::vector<double>& whole) {
  const std::vector<double> parameters = OwnOf(whole);
  const Tensor masters = parallel_->masters();
  if (masters.dtype == DType::kFloat64) {
    rank_.backend->CopyFromHost(parameters.data(), masters);
    return;
  }
  const std::vector<float> rounded(parameters.begin(), parameters.end());
  rank_.backend->CopyFromHost(rounded.data(), masters);
  if (const Tensor weights = parallel_->owned()[0].weight; weights.data != masters.data) {
    rank_.backend->Convert(masters, weights);
  }
}

std::vector<double> ModelUnderTest::RandomParameters(uint32_t seed, double deviation) const {
  std::vector<double> parameters(static_cast<size_t>(layout_.count()));
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, deviation);
  std::generate(parameters.begin(), parameters.end(), [&] { return normal(random); });
  return parameters;
}

std::vector<double> ModelUnderTest::Read(Tensor tensor) const {
  std::vector<double> values(static_cast<size_t>(tensor.count()));
  if (tensor.dtype == DType::kFloat64) {
    rank_.backend->CopyToHost(tensor, values.data());
    return values;
  }
  std::vector<float> narrow(values.size());
  rank_.backend->CopyToHost(tensor, narrow.data());
  return {narrow.begin(), narrow.end()};
}

Tensor ModelUnderTest::Upload(const std::vector<int32_t>& whole, int64_t chunk, Tensor tokens) {
  const auto length = static_cast<int64_t>(whole.size()) / shape_.sequences;
  const int64_t first = chunks_.SliceBegin(chunk, rank_.grid.sp_rank());
  const int64_t count = chunks_.SliceTokens(chunk, rank_.grid.sp_rank());
  for (int64_t sequence = 0; sequence < shape_.sequences && count > 0; ++sequence) {
    rank_.backend->CopyFromHost(whole.data() + sequence * length + first,
                                tokens.Rows(sequence * count, count));
  }
  return tokens.Rows(0, shape_.sequences * count);
}

TokenBatch ModelUnderTest::Upload(const std::vector<int32_t>& ids,
                                  const std::vector<int32_t>& labels, int64_t chunk) {
  return {.ids = Upload(ids, chunk, tokens_.ids),
          .labels = Upload(labels, chunk, tokens_.labels),
          .slices = chunks_.SlicesOf(chunk),
          .first_position = plan_.first_position + chunks_.SliceBegin(chunk, rank_.grid.sp_rank()),
          .documents = UploadMarks(chunk)};
}

DocumentMarksLayout ModelUnderTest::MarksOf(int64_t chunk) const {
  return {.sequences = shape_.sequences,
          .ranks = rank_.grid.sp_size(),
          .slices = chunks_.SlicesOf(chunk)};
}

DocumentMarks ModelUnderTest::UploadMarks(int64_t chunk) {
  const DocumentMarksLayout layout = MarksOf(chunk);
  const int64_t begin = chunks_.SliceBegin(chunk, 0);
  std::vector<std::vector<int64_t>> here(plan_.documents.size());
  for (size_t sequence = 0; sequence < here.size(); ++sequence) {
    for (const int64_t start : plan_.documents[sequence]) {
      if (start >= begin && start < begin + layout.slices.total) {
        here[sequence].push_back(start - begin);
      }
    }
  }
  const std::vector<uint64_t> words = MarkDocuments(layout, here);
  if (words.empty()) {
    return {};
  }
  const Tensor marks = document_marks_.Columns(0, 2 * layout.words());
  rank_.backend->CopyFromHost(words.data(), marks);
  return {marks, layout, rank_.grid.sp_rank()};
}

absl::StatusOr<double> ModelUnderTest::Run(const std::vector<int32_t>& ids,
                                           const std::vector<int32_t>& labels,
                                           const std::function<void()>& fetching) {
  rank_.backend->Fill(0, loss_);
  double count = 0;
  for (const int32_t label : labels) {
    count += label >= 0 ? 1 : 0;
  }
  SequenceSweep sweep(rank_.backend, model_.get(), activations_.carried(), chunks_.count());
  LASP_RETURN_IF_ERROR(sweep.Train(
      [&](int64_t chunk) -> absl::StatusOr<TokenBatch> {
        fetching();
        return Upload(ids, labels, chunk);
      },
      1 / count, loss_, /*adds=*/false, /*last_micro_batch=*/true));
  LASP_RETURN_IF_ERROR(rank_.world->AllReduceSum(loss_).Wait());
  LASP_RETURN_IF_ERROR(parallel_->Finish());
  if (own_config_.tensor_ranks > 1) {
    LASP_ASSIGN_OR_RETURN(whole_gradients_, WholeOf(Read(parallel_->owned()[0].gradient)));
  }
  return Read(loss_)[0] / count;
}

absl::StatusOr<double> ModelUnderTest::Evaluate(const std::vector<int32_t>& ids,
                                                const std::vector<int32_t>& labels) {
  rank_.backend->Fill(0, loss_);
  SequenceSweep sweep(rank_.backend, model_.get(), activations_.carried(), chunks_.count());
  LASP_RETURN_IF_ERROR(sweep.Evaluate(
      [&](int64_t chunk) -> absl::StatusOr<TokenBatch> { return Upload(ids, labels, chunk); },
      loss_));
  LASP_RETURN_IF_ERROR(rank_.world->AllReduceSum(loss_).Wait());
  return Read(loss_)[0] / static_cast<double>(labels.size());
}

RandomSequences MakeSequences(int64_t sequences, int64_t length, int64_t vocab_size,
                              uint32_t seed) {
  std::mt19937 random(seed);
  RandomSequences made;
  for (int64_t sequence = 0; sequence < sequences; ++sequence) {
    auto next = static_cast<int32_t>(random() % static_cast<uint32_t>(vocab_size));
    for (int64_t i = 0; i < length; ++i) {
      made.ids.push_back(next);
      next = static_cast<int32_t>(random() % static_cast<uint32_t>(vocab_size));
      made.labels.push_back(next);
    }
  }
  return made;
}

}  // namespace lasp::worker
