#include "proto/spec/megatron_index.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/rpc/status_macros.h"

namespace lasp {
namespace {

constexpr absl::string_view kMagic("MMIDIDX\0\0", 9);
constexpr int64_t kChunk = 4096;

struct Layout {
  int64_t sequences = 0;
  int64_t documents = 0;
  int64_t width = 0;

  int64_t lengths() const { return kMegatronHeaderBytes; }

  int64_t offsets() const { return lengths() + 4 * sequences; }

  int64_t document_indices() const { return offsets() + 8 * sequences; }
};

absl::Status Contradiction(const FileReader& reader, absl::string_view what) {
  return absl::DataLossError(
      absl::StrCat(reader.path(), ": ", what, ": the index is damaged, copy or build it again"));
}

absl::StatusOr<TokenType> TypeFromCode(const FileReader& reader, int code) {
  switch (code) {
    case 1:
      return TokenType::kUint8;
    case 2:
      return TokenType::kInt8;
    case 3:
      return TokenType::kInt16;
    case 4:
      return TokenType::kInt32;
    case 5:
      return TokenType::kInt64;
    case 8:
      return TokenType::kUint16;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          reader.path(), " is of token type ", code,
          ": 1 (uint8), 2 (int8), 3 (int16), 4 (int32), 5 (int64) and 8 (uint16) are read, "
          "preprocess the corpus to one of them"));
  }
}

// Counts are believed only where they add up to the file's size.
absl::StatusOr<Layout> CheckCounts(const FileReader& reader, uint64_t sequences,
                                   uint64_t documents) {
  const auto room = static_cast<uint64_t>(reader.size() - kMegatronHeaderBytes);
  // Each sequence takes 12 bytes, each document index 8: counts beyond the file cannot overflow.
  if (sequences > room / 12 || documents > room / 8 || 12 * sequences + 8 * documents != room) {
    return Contradiction(
        reader, absl::StrCat("its header says ", sequences, " sequences and ", documents,
                             " document indices, which does not make ", reader.size(), " bytes"));
  }
  if (sequences == 0) {
    return absl::InvalidArgumentError(absl::StrCat(reader.path(), " holds no sequence"));
  }
  return Layout{.sequences = static_cast<int64_t>(sequences),
                .documents = static_cast<int64_t>(documents)};
}

// Walks sequences [begin, end), of which the first starts at `position` in the .bin; on return
// `position` is where the last ends.
absl::Status WalkSequences(const FileReader& reader, const Layout& layout, int64_t begin,
                           int64_t end, int64_t* position) {
  std::vector<int32_t> lengths(kChunk);
  std::vector<int64_t> offsets(kChunk);
  for (int64_t first = begin; first < end; first += kChunk) {
    const int64_t count = std::min(kChunk, end - first);
    LASP_RETURN_IF_ERROR(reader.ReadAt(layout.lengths() + 4 * first, 4 * count, lengths.data()));
    LASP_RETURN_IF_ERROR(reader.ReadAt(layout.offsets() + 8 * first, 8 * count, offsets.data()));
    for (int64_t i = 0; i < count; ++i) {
      const int32_t length = lengths[static_cast<size_t>(i)];
      const int64_t offset = offsets[static_cast<size_t>(i)];
      if (length < 0) {
        return Contradiction(
            reader, absl::StrCat("sequence ", first + i, " has a length of ", length, " tokens"));
      }
      if (offset != *position) {
        return Contradiction(reader,
                             absl::StrCat("sequence ", first + i, " starts at byte ", offset,
                                          ", but the one before ends at ", *position,
                                          " (sequences must follow each other)"));
      }
      if (*position > std::numeric_limits<int64_t>::max() - layout.width * length) {
        return Contradiction(reader, absl::StrCat("sequence ", first + i, " ends beyond 2^63"));
      }
      *position += layout.width * length;
    }
  }
  return absl::OkStatus();
}

// In document_indices, the first sequence of each document ascends from 0 to the sequence count.
absl::Status WalkDocuments(const FileReader& reader, const Layout& layout) {
  std::vector<int64_t> indices(kChunk);
  int64_t previous = 0;
  for (int64_t first = 0; first < layout.documents; first += kChunk) {
    const int64_t count = std::min(kChunk, layout.documents - first);
    LASP_RETURN_IF_ERROR(
        reader.ReadAt(layout.document_indices() + 8 * first, 8 * count, indices.data()));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t index = indices[static_cast<size_t>(i)];
      if (index < previous || index > layout.sequences || (first + i == 0 && index != 0)) {
        return Contradiction(
            reader, absl::StrCat("document ", first + i, " starts at sequence ", index, ", after ",
                                 previous, " and of ", layout.sequences, " sequences"));
      }
      previous = index;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MegatronIndex> ReadMegatronIndex(const FileReader& reader, CorpusCheck check) {
  char header[kMegatronHeaderBytes];
  if (reader.size() < kMegatronHeaderBytes) {
    return absl::DataLossError(absl::StrCat(reader.path(), " holds ", reader.size(),
                                            " bytes, less than a Megatron index header of ",
                                            kMegatronHeaderBytes, ": it is truncated"));
  }
  LASP_RETURN_IF_ERROR(reader.ReadAt(0, kMegatronHeaderBytes, header));
  if (absl::string_view(header, kMagic.size()) != kMagic) {
    return absl::InvalidArgumentError(
        absl::StrCat(reader.path(),
                     " is no Megatron index (it does not start with MMIDIDX): build it with "
                     "Megatron's preprocess_data, or set spec.data.format to what it is"));
  }
  uint64_t version = 0;
  uint64_t sequences = 0;
  uint64_t documents = 0;
  std::memcpy(&version, header + 9, 8);
  std::memcpy(&sequences, header + 18, 8);
  std::memcpy(&documents, header + 26, 8);
  if (version != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(reader.path(), " is of version ", version, ": only version 1 is read"));
  }
  MegatronIndex index;
  LASP_ASSIGN_OR_RETURN(index.type, TypeFromCode(reader, static_cast<unsigned char>(header[17])));
  LASP_ASSIGN_OR_RETURN(Layout layout, CheckCounts(reader, sequences, documents));
  layout.width = TokenBytes(index.type);
  int64_t position = 0;
  if (check == CorpusCheck::kFull || layout.sequences <= 2 * kQuickSequences) {
    LASP_RETURN_IF_ERROR(WalkSequences(reader, layout, 0, layout.sequences, &position));
    LASP_RETURN_IF_ERROR(WalkDocuments(reader, layout));
  } else {
    LASP_RETURN_IF_ERROR(WalkSequences(reader, layout, 0, kQuickSequences, &position));
    const int64_t tail = layout.sequences - kQuickSequences;
    int64_t tail_position = 0;
    LASP_RETURN_IF_ERROR(reader.ReadAt(layout.offsets() + 8 * tail, 8, &tail_position));
    if (tail_position < position) {
      return Contradiction(
          reader, absl::StrCat("sequence ", tail, " starts at byte ", tail_position,
                               ", before sequence ", kQuickSequences - 1, " ends at ", position));
    }
    position = tail_position;
    LASP_RETURN_IF_ERROR(WalkSequences(reader, layout, tail, layout.sequences, &position));
  }
  index.data_bytes = position;
  index.sequences = layout.sequences;
  index.documents = layout.documents;
  index.offsets_at = layout.offsets();
  index.documents_at = layout.document_indices();
  return index;
}

}  // namespace lasp
