#include "tests/worker/model/model_under_test.h"

#include <random>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {

absl::StatusOr<std::unique_ptr<ModelUnderTest>> ModelUnderTest::Create(const ModelConfig& config,
                                                                       const MicroBatchShape& shape,
                                                                       LocalRank& rank) {
  auto model = std::unique_ptr<ModelUnderTest>(new ModelUnderTest(config, shape, rank));
  Arena plan;
  model->TakeMemory(plan);
  LASP_ASSIGN_OR_RETURN(model->arena_, Arena::Create(*rank.backend, plan.used_bytes()));
  model->TakeMemory(model->arena_);
  return model;
}

void ModelUnderTest::TakeMemory(Arena& arena) {
  const DType type = rank_.backend->accumulation_type();
  parameters_.masters = arena.Take(MemoryUse::kWeights, type, 1, layout_.count());
  parameters_.weights =
      rank_.backend->activation_type() == type
          ? parameters_.masters
          : arena.Take(MemoryUse::kWeights, rank_.backend->activation_type(), 1, layout_.count());
  parameters_.gradients = arena.Take(MemoryUse::kGradients, type, 1, layout_.count());
  loss_ = arena.Take(MemoryUse::kWorkspace, DType::kFloat64, 1, 1);
  tokens_ = {.ids = arena.Take(MemoryUse::kWorkspace, DType::kInt32, shape_.rows(), 1),
             .labels = arena.Take(MemoryUse::kWorkspace, DType::kInt32, shape_.rows(), 1)};
  attention_ = CreateLasp(rank_.backend, rank_.sp);
  model_ = std::make_unique<TransNormer>(config_, shape_, &layout_, parameters_, rank_.backend,
                                         attention_.get(), arena);
}

void ModelUnderTest::SetParameters(const std::vector<double>& parameters) {
  if (parameters_.masters.dtype == DType::kFloat64) {
    rank_.backend->CopyFromHost(parameters.data(), parameters_.masters);
    return;
  }
  const std::vector<float> rounded(parameters.begin(), parameters.end());
  rank_.backend->CopyFromHost(rounded.data(), parameters_.masters);
  if (parameters_.weights.data != parameters_.masters.data) {
    rank_.backend->Convert(parameters_.masters, parameters_.weights);
  }
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

void ModelUnderTest::Upload(const std::vector<int32_t>& whole, Tensor slice) {
  const int64_t length = shape_.tokens * rank_.grid.sp_size();
  const int64_t first = rank_.grid.sp_rank() * shape_.tokens;
  for (int64_t sequence = 0; sequence < shape_.sequences; ++sequence) {
    rank_.backend->CopyFromHost(whole.data() + sequence * length + first,
                                slice.Rows(sequence * shape_.tokens, shape_.tokens));
  }
}

absl::StatusOr<double> ModelUnderTest::Run(const std::vector<int32_t>& ids,
                                           const std::vector<int32_t>& labels) {
  Upload(ids, tokens_.ids);
  Upload(labels, tokens_.labels);
  rank_.backend->Fill(0, loss_);
  double count = 0;
  for (const int32_t label : labels) {
    count += label >= 0 ? 1 : 0;
  }
  // Small buckets, so that reduction and backward interleave.
  const auto reducer = CreateDdp(rank_.world, parameters_.gradients, 100);
  LASP_RETURN_IF_ERROR(model_->ForwardForTraining(tokens_, 1 / count, loss_, /*adds=*/false));
  LASP_RETURN_IF_ERROR(model_->Backward(tokens_, reducer.get()));
  LASP_RETURN_IF_ERROR(rank_.world->AllReduceSum(loss_).Wait());
  LASP_RETURN_IF_ERROR(reducer->Finish());
  return Read(loss_)[0] / count;
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
