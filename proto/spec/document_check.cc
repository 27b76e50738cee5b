#include "proto/spec/document_check.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/spec/sequence_parallel_support.h"
#include "proto/spec/softmax_support.h"

namespace lasp {
namespace {

// The largest token that a format has, beside the vocabulary's.
int64_t LargestTokenOf(v1::DataSpec::Format format) {
  switch (format) {
    case v1::DataSpec::FORMAT_BYTES:
      return std::numeric_limits<uint8_t>::max();
    case v1::DataSpec::FORMAT_UINT16:
      return std::numeric_limits<uint16_t>::max();
    default:
      return std::numeric_limits<int32_t>::max();
  }
}

bool CheckEndToken(const v1::TrainingSpec& spec, FieldChecker* check) {
  constexpr absl::string_view kField = "spec.data.document_end_token";
  const v1::DataSpec& data = spec.data();
  const bool packed = data.documents() == v1::DataSpec::DOCUMENTS_PACKED;
  if (!packed && data.has_document_end_token()) {
    return check->Refuse(kField, absl::StrCat("is ", data.document_end_token(),
                                              ", but documents are JOINED: leave it out, or choose "
                                              "spec.data.documents PACKED"));
  }
  if (packed && data.format() == v1::DataSpec::FORMAT_MEGATRON) {
    // Its .idx says where documents end.
    return !data.has_document_end_token() ||
           check->Refuse(kField, absl::StrCat("is ", data.document_end_token(),
                                              ", but format MEGATRON says in its .idx where "
                                              "documents end: leave it out"));
  }
  if (packed && !data.has_document_end_token()) {
    return check->Refuse(kField,
                         "is missing, so that nothing says where documents end: name the last "
                         "token of each, or choose spec.data.documents JOINED");
  }
  const int64_t largest =
      std::min<int64_t>(spec.model().vocab_size() - 1, LargestTokenOf(data.format()));
  return !packed || spec.model().vocab_size() < 1 ||
         check->Integer(kField, data.document_end_token(), 0, largest);
}

}  // namespace

bool CheckDocuments(const v1::TrainingSpec& spec, FieldChecker* check) {
  constexpr absl::string_view kField = "spec.data.documents";
  const v1::DataSpec& data = spec.data();
  if (!v1::DataSpec::Documents_IsValid(data.documents())) {
    return check->Refuse(kField, "is unknown: choose JOINED or PACKED");
  }
  if (data.documents() != v1::DataSpec::DOCUMENTS_PACKED) {
    // A job that was stored before there was a choice has made none.
    return CheckEndToken(spec, check);
  }
  const bool end_token = CheckEndToken(spec, check);
  const std::string reason =
      ReasonAgainstPacking(spec.parallelism().sequence_parallel().method(), spec.model());
  return reason.empty() ? end_token : check->Refuse(kField, reason);
}

}  // namespace lasp
