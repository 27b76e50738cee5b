// The bounds of a spec's numbers. They lie beyond what anyone trains today; their products fit
// int64, so that code behind the validator multiplies without fear.
#pragma once

#include <cstdint>

namespace lasp {

inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxHiddenSize = 65'536;
// The kernels hold a head's row, and its square state, in fixed scratch.
inline constexpr int64_t kMaxHeadSize = 256;
inline constexpr double kMaxRotaryBase = 1e12;
inline constexpr int64_t kMaxGluSize = int64_t{1} << 20;
inline constexpr int64_t kMaxVocabSize = int64_t{1} << 24;
inline constexpr int64_t kMaxParameters = int64_t{1} << 40;
inline constexpr int64_t kMaxSequenceLength = int64_t{1} << 40;
inline constexpr int64_t kMaxGlobalBatchSize = int64_t{1} << 24;
inline constexpr int64_t kMaxSteps = int64_t{1} << 40;
inline constexpr int64_t kMaxRanks = 4096;
// Rows of one matrix product: BLAS counts them in 32 bits.
inline constexpr int64_t kMaxTokensPerRank = (int64_t{1} << 31) - 1;
// Tokens of a rank x layers x width: 64 TiB of fp32, for one activation a layer.
inline constexpr int64_t kMaxActivationElements = int64_t{1} << 44;
inline constexpr int64_t kMaxTrainedTokens = int64_t{1} << 62;
inline constexpr int kMaxDataPaths = 4096;
inline constexpr int kMaxPathBytes = 1024;
inline constexpr int64_t kMaxEvalBatches = int64_t{1} << 20;
inline constexpr int64_t kMaxRestarts = 1000;
inline constexpr double kMaxOutlierDeviations = 1e6;
// Ten years.
inline constexpr int64_t kMaxDurationSeconds = int64_t{3650} * 24 * 3600;
inline constexpr int64_t kMaxSkippedSteps = 1'000'000;

}  // namespace lasp
