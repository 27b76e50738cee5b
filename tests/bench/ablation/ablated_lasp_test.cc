// What is left out of LASP costs time and changes no result: outputs and gradients on every rank
// are those of LASP itself, and where nothing is cached the forward's exchange is made twice.
#include "tests/bench/ablation/ablated_lasp.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "tests/worker/parallel/attention_layer.h"
#include "tests/worker/parallel/local_ranks.h"
#include "tests/worker/parallel/traffic_formulas.h"

namespace lasp::bench {
namespace {

using worker::AttentionLayer;
using worker::AttentionShape;
using worker::LocalRank;
using worker::Tensor;

void AddDecayedOnHost(const AttentionShape& shape, Tensor x, bool from_end, Tensor y) {
  const auto* const slopes = static_cast<const double*>(shape.slopes.data);
  for (int64_t row = 0; row < shape.batch * shape.tokens; ++row) {
    const int64_t token = row % shape.tokens;
    const int64_t exponent = from_end ? shape.tokens - 1 - token : token + 1;
    const auto* const from = static_cast<const double*>(x.data) + row * x.row_stride;
    auto* const to = static_cast<double*>(y.data) + row * y.row_stride;
    for (int64_t column = 0; column < shape.heads * shape.head_size; ++column) {
      const double slope = slopes[column / shape.head_size];
      to[column] += std::exp(-slope * static_cast<double>(exponent)) * from[column];
    }
  }
}

std::vector<double> Values(LocalRank& rank, Tensor tensor) {
  std::vector<double> values(static_cast<size_t>(tensor.count()));
  rank.backend->CopyToHost(tensor, values.data());
  return values;
}

// The output, the gradients, and the bytes that were sent.
struct Results {
  std::vector<std::vector<double>> tensors;
  int64_t sent_bytes = 0;
};

absl::StatusOr<Results> RunLayer(const AttentionShape& shape, worker::SequenceParallel* attention,
                                 LocalRank& rank) {
  LASP_ASSIGN_OR_RETURN(const auto layer, AttentionLayer::Create(shape, attention, rank.backend));
  // Decays that differ, and matter.
  std::vector<double> slopes(static_cast<size_t>(shape.heads));
  for (size_t head = 0; head < slopes.size(); ++head) {
    slopes[head] = 0.02 / static_cast<double>(head + 1);
  }
  rank.backend->CopyFromHost(slopes.data(), layer->shape().slopes);
  const int64_t before = rank.sp->counters().sent_bytes;
  LASP_RETURN_IF_ERROR(layer->Forward());
  LASP_RETURN_IF_ERROR(layer->Backward());
  LASP_RETURN_IF_ERROR(attention->Finish());
  Results results{.tensors = {}, .sent_bytes = rank.sp->counters().sent_bytes - before};
  for (const Tensor tensor :
       {layer->output(), layer->gradients().q, layer->gradients().k, layer->gradients().v}) {
    results.tensors.push_back(Values(rank, tensor));
  }
  return results;
}

double LargestDifference(const Results& a, const Results& b) {
  double largest = 0;
  for (size_t i = 0; i < a.tensors.size(); ++i) {
    for (size_t j = 0; j < a.tensors[i].size(); ++j) {
      largest = std::max(largest, std::abs(a.tensors[i][j] - b.tensors[i][j]));
    }
  }
  return largest;
}

TEST(AblatedLaspTest, WhatIsLeftOutChangesNoResult) {
  for (const bool lrpe : {false, true}) {
    const AttentionShape shape{.batch = 2,
                               .tokens = 100,
                               .heads = 3,
                               .head_size = 16,
                               .lrpe = lrpe,
                               .slopes = {},
                               .theta = {}};
    worker::ExpectLocalRanks(
        {.sp_size = 3, .compute_type = worker::DType::kFloat64},
        [&](LocalRank& rank) -> absl::Status {
          const auto lasp = worker::CreateLasp(rank.backend, rank.sp);
          LASP_ASSIGN_OR_RETURN(const Results expected, RunLayer(shape, lasp.get(), rank));
          for (const bool fused : {false, true}) {
            for (const bool cached : {false, true}) {
              SCOPED_TRACE(testing::Message() << lrpe << fused << cached << rank.sp->rank());
              const auto ablated = CreateAblatedLasp(
                  rank.backend, rank.sp, {.fused = fused, .cached = cached}, AddDecayedOnHost);
              LASP_ASSIGN_OR_RETURN(const Results found, RunLayer(shape, ablated.get(), rank));
              EXPECT_LT(LargestDifference(found, expected), 1e-10);
              // In fp64, twice the formula's bytes. The last rank has nothing to send on again.
              const bool last = rank.sp->rank() == rank.sp->size() - 1;
              EXPECT_EQ(found.sent_bytes - expected.sent_bytes,
                        cached || last ? 0 : 2 * worker::StateBytes(shape));
            }
          }
          return absl::OkStatus();
        });
  }
}

}  // namespace
}  // namespace lasp::bench
