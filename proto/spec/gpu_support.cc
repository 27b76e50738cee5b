#include "proto/spec/gpu_support.h"

#include "absl/strings/str_cat.h"

namespace lasp {
namespace {

constexpr int kMaxGpuHeadSize = 128;
constexpr int kGpuHeadSizeStep = 8;

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

std::string ReasonAgainstGpus(const v1::SequenceParallelSpec& sp, const v1::ModelSpec& model) {
  return sp.method() == v1::SequenceParallelSpec::METHOD_RING_ATTENTION &&
                 model.lrpe_theta() == v1::ModelSpec::LRPE_THETA_LEARNED
             ? "is RING_ATTENTION, which learns no rotary frequencies on GPUs: choose another "
               "method, lrpe_theta FIXED, or device CPU"
             : "";
}

}  // namespace lasp
