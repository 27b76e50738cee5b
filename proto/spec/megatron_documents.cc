#include "proto/spec/megatron_documents.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/file_reader.h"

namespace lasp {
namespace {

class DocumentTable {
 public:
  explicit DocumentTable(const CorpusFile& file)
      : index_(*file.index),
        token_bytes_(TokenBytes(file.type)),
        token_count_(file.token_count),
        reader_(index_.fd.get(), index_.path, index_.bytes) {}

  // The last entry is behind the last document.
  int64_t size() const { return std::max<int64_t>(index_.documents - 1, 0); }

  // The first token of a document.
  absl::StatusOr<int64_t> StartOf(int64_t document) const {
    int64_t sequence = 0;
    LASP_RETURN_IF_ERROR(reader_.ReadAt(index_.documents_at + 8 * document, 8, &sequence));
    if (sequence < 0 || sequence > index_.sequences) {
      return Contradiction(document);
    }
    if (sequence == index_.sequences) {  // it and those behind it have no tokens
      return token_count_;
    }
    int64_t offset = 0;
    LASP_RETURN_IF_ERROR(reader_.ReadAt(index_.offsets_at + 8 * sequence, 8, &offset));
    if (offset < 0 || offset > token_count_ * token_bytes_ || offset % token_bytes_ != 0) {
      return Contradiction(document);
    }
    return offset / token_bytes_;
  }

  // The first document that starts at `token` or behind it; size() where none does.
  absl::StatusOr<int64_t> FirstFrom(int64_t token) const {
    int64_t low = 0;
    int64_t high = size();
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      LASP_ASSIGN_OR_RETURN(const int64_t start, StartOf(middle));
      if (start < token) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

 private:
  absl::Status Contradiction(int64_t document) const {
    return absl::DataLossError(
        absl::StrCat(index_.path, ": document ", document,
                     " no longer starts in the corpus: leave a corpus alone while jobs use it"));
  }

  const CorpusIndex& index_;
  const int64_t token_bytes_;
  const int64_t token_count_;
  const FileReader reader_;
};

}  // namespace

absl::Status FindMegatronDocuments(const CorpusFile& file, int64_t begin, int64_t end,
                                   int64_t origin, std::vector<int64_t>* starts) {
  const DocumentTable table(file);
  LASP_ASSIGN_OR_RETURN(int64_t document, table.FirstFrom(begin));
  int64_t last = -1;
  for (; document < table.size(); ++document) {
    LASP_ASSIGN_OR_RETURN(const int64_t start, table.StartOf(document));
    if (start >= end) {
      break;
    }
    if (start != last) {
      starts->push_back(origin + start);
    }
    last = start;
  }
  return absl::OkStatus();
}

}  // namespace lasp
