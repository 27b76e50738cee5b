#include "proto/spec/gpu_support.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"

namespace lasp {
namespace {

constexpr int kMaxGpuHeadSize = 128;
constexpr int kGpuHeadSizeStep = 8;
// Of the heads of all sequences that a rank computes at once: a grid's second and third dimension.
constexpr int64_t kMaxGpuHeads = 65535;

using SequenceParallel = v1::SequenceParallelSpec;

std::string ReasonAgainstMethod(const SequenceParallel& sp, const v1::ModelSpec& model) {
  return sp.method() == SequenceParallel::METHOD_RING_ATTENTION &&
                 model.lrpe_theta() == v1::ModelSpec::LRPE_THETA_LEARNED
             ? "is RING_ATTENTION, which learns no rotary frequencies on GPUs: choose another "
               "method, lrpe_theta FIXED, or device CPU"
             : "";
}

std::string ReasonAgainstMicroBatch(const v1::TrainingSpec& spec) {
  const SequenceParallel& sp = spec.parallelism().sequence_parallel();
  // There a rank has whole sequences of some heads.
  const bool some_heads = sp.method() == SequenceParallel::METHOD_ULYSSES ||
                          sp.method() == SequenceParallel::METHOD_MEGATRON_SP;
  const int64_t heads = spec.model().heads() / (some_heads ? std::max(1, sp.size()) : 1);
  const int64_t sequences = spec.micro_batch_size();
  if (heads < 1 || sequences <= kMaxGpuHeads / heads) {
    return "";
  }
  return absl::StrCat("is ", sequences, ", with ", heads, heads == 1 ? " head" : " heads",
                      " a rank: GPUs take at most ", kMaxGpuHeads / heads,
                      " such sequences at once, choose fewer, or device CPU");
}

}  // namespace

std::string ReasonAgainstGpus(const v1::ModelSpec& model) {
  if (model.heads() < 1 || model.hidden_size() < 1) {
    return "";
  }
  const int head_size = model.hidden_size() / model.heads();
  if (head_size <= kMaxGpuHeadSize && head_size % kGpuHeadSizeStep == 0) {
    return "";
  }
  return absl::StrCat("is ", model.heads(), ", so a head is ", head_size,
                      " wide: GPUs take multiples of ", kGpuHeadSizeStep, " up to ",
                      kMaxGpuHeadSize, ", choose other heads, or device CPU");
}

std::vector<GpuRefusal> RefusalsByGpus(const v1::TrainingSpec& spec) {
  const SequenceParallel& sp = spec.parallelism().sequence_parallel();
  std::vector<GpuRefusal> refusals = {
      {"spec.model.heads", ReasonAgainstGpus(spec.model())},
      {"spec.parallelism.sequence_parallel.method", ReasonAgainstMethod(sp, spec.model())},
      {"spec.micro_batch_size", ReasonAgainstMicroBatch(spec)},
  };
  std::erase_if(refusals, [](const GpuRefusal& refusal) { return refusal.reason.empty(); });
  return refusals;
}

}  // namespace lasp
