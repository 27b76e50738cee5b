#include "proto/spec/sequence_parallel_support.h"

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
      return true;
    default:
      return false;
  }
}

std::string ReasonAgainstSize(const v1::SequenceParallelSpec& sp, const v1::ModelSpec& model) {
  // Of softmax layers the heads of keys and values, which divide those of queries.
  const bool grouped = SoftmaxLayers(model) > 0;
  const int heads = grouped ? model.kv_heads() : model.heads();
  if (sp.method() != v1::SequenceParallelSpec::METHOD_ULYSSES || sp.size() < 1 || heads < 1 ||
      heads % sp.size() == 0) {
    return "";
  }
  int below = sp.size() < heads ? sp.size() : heads;
  while (heads % below != 0) {
    --below;
  }
  const char* const what = grouped ? "kv_heads" : "heads";
  return absl::StrCat("is ", sp.size(), ", which does not divide the ", heads, " ", what,
                      " that ULYSSES shares out: choose ", below, ", another number of ", what,
                      ", or LASP");
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

}  // namespace lasp
