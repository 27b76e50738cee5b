#include "proto/spec/sequence_parallel_support.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/spec/softmax_support.h"

namespace lasp {

bool IsAvailable(v1::SequenceParallelSpec::Method method) {
  switch (method) {
    case v1::SequenceParallelSpec::METHOD_LASP:
    case v1::SequenceParallelSpec::METHOD_LASP2:
    case v1::SequenceParallelSpec::METHOD_ALL_SCAN:
    case v1::SequenceParallelSpec::METHOD_RING_ATTENTION:
    case v1::SequenceParallelSpec::METHOD_ULYSSES:
    case v1::SequenceParallelSpec::METHOD_MEGATRON_SP:
      return true;
    default:
      return false;
  }
}

std::string ReasonAgainstSize(const v1::SequenceParallelSpec& sp, const v1::ModelSpec& model) {
  const bool megatron = sp.method() == v1::SequenceParallelSpec::METHOD_MEGATRON_SP;
  // Of softmax layers the heads of keys and values, which divide those of queries.
  const bool grouped = SoftmaxLayers(model) > 0;
  const int heads = grouped ? model.kv_heads() : model.heads();
  if ((sp.method() != v1::SequenceParallelSpec::METHOD_ULYSSES && !megatron) || sp.size() < 1 ||
      heads < 1) {
    return "";
  }
  const auto shared_out = [&](int ranks) {
    return heads % ranks == 0 && (!megatron || model.glu_size() % ranks == 0);
  };
  if (shared_out(sp.size())) {
    return "";
  }
  int below = std::min(sp.size(), heads);
  while (!shared_out(below)) {
    --below;
  }
  const bool of_heads = heads % sp.size() != 0;
  const char* const what = !of_heads ? "glu_size" : grouped ? "kv_heads" : "heads";
  return absl::StrCat(
      "is ", sp.size(), ", which does not divide the ",
      of_heads ? absl::StrCat(heads, " ", what) : absl::StrCat(what, " ", model.glu_size()),
      " that ", megatron ? "MEGATRON_SP" : "ULYSSES", " shares out: choose ", below, ", another ",
      of_heads ? "number of " : "", what, ", or LASP");
}

int64_t SliceMultiple(const v1::SequenceParallelSpec& sp, const v1::ModelSpec& model) {
  // Halves of the slices change places.
  return sp.method() == v1::SequenceParallelSpec::METHOD_RING_ATTENTION && sp.size() > 1 &&
                 SoftmaxLayers(model) > 0
             ? 2
             : 1;
}

std::string ReasonAgainstShardGroup(v1::SequenceParallelSpec::Method method) {
  return method == v1::SequenceParallelSpec::METHOD_MEGATRON_SP
             ? "is SP, among whose ranks MEGATRON_SP has shared out the weights already: leave it "
               "out, or choose WORLD"
             : "";
}

std::string ReasonAgainstStreaming(v1::SequenceParallelSpec::Method method) {
  // A macro-chunk leaves the next one its states. Keys and values of all that came before are no
  // such thing.
  return method == v1::SequenceParallelSpec::METHOD_RING_ATTENTION
             ? "is STREAM, but RING_ATTENTION has no state to go on from one macro-chunk to the "
               "next: choose LASP, LASP2, ALL_SCAN, ULYSSES or MEGATRON_SP as the method, or KEEP, "
               "RECOMPUTE or OFFLOAD"
             : "";
}

std::string ReasonAgainstPacking(v1::SequenceParallelSpec::Method method,
                                 const v1::ModelSpec& model) {
  return method == v1::SequenceParallelSpec::METHOD_RING_ATTENTION &&
                 SoftmaxLayers(model) < model.layers()
             ? "is PACKED, but RING_ATTENTION knows no borders between documents in layers of "
               "linear attention: choose LASP, LASP2, ALL_SCAN, ULYSSES or MEGATRON_SP as the "
               "method, or JOINED"
             : "";
}

}  // namespace lasp
