#include "proto/spec/sequence_parallel_support.h"

#include "absl/strings/str_cat.h"

namespace lasp {

bool IsAvailable(v1::SequenceParallelSpec::Method method) {
  switch (method) {
    case v1::SequenceParallelSpec::METHOD_LASP:
    case v1::SequenceParallelSpec::METHOD_LASP2:
    case v1::SequenceParallelSpec::METHOD_ALL_SCAN:
    case v1::SequenceParallelSpec::METHOD_RING_ATTENTION:
    case v1::SequenceParallelSpec::METHOD_ULYSSES:
      return true;
    default:
      return false;
  }
}

std::string ReasonAgainstSize(const v1::SequenceParallelSpec& sp, const v1::ModelSpec& model) {
  const int heads = model.heads();
  if (sp.method() != v1::SequenceParallelSpec::METHOD_ULYSSES || sp.size() < 1 || heads < 1 ||
      heads % sp.size() == 0) {
    return "";
  }
  int below = sp.size() < heads ? sp.size() : heads;
  while (heads % below != 0) {
    --below;
  }
  return absl::StrCat("is ", sp.size(), ", which does not divide the ", heads,
                      " heads that ULYSSES shares out: choose ", below,
                      ", another number of heads, or LASP");
}

std::string ReasonAgainstStreaming(v1::SequenceParallelSpec::Method method) {
  // A macro-chunk leaves the next one its states. Keys and values of all that came before are no
  // such thing.
  return method == v1::SequenceParallelSpec::METHOD_RING_ATTENTION
             ? "is STREAM, but RING_ATTENTION has no state to go on from one macro-chunk to the "
               "next: choose LASP, LASP2, ALL_SCAN or ULYSSES as the method, or KEEP, RECOMPUTE "
               "or OFFLOAD"
             : "";
}

std::string ReasonAgainstPacking(v1::SequenceParallelSpec::Method method) {
  const bool ring = method == v1::SequenceParallelSpec::METHOD_RING_ATTENTION;
  if (!ring && method != v1::SequenceParallelSpec::METHOD_MEGATRON_SP) {
    return "";
  }
  return absl::StrCat("is PACKED, but ", ring ? "RING_ATTENTION" : "MEGATRON_SP",
                      " knows no borders between documents: choose LASP, LASP2, ALL_SCAN or "
                      "ULYSSES as the method, or JOINED");
}

}  // namespace lasp
