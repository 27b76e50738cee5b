#include "worker/data/corpus.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/megatron_documents.h"
#include "proto/spec/token_decoder.h"
#include "worker/data/open_file_limit.h"

namespace lasp::worker {
namespace {

// Tokens are copied from the mapping and decoded in pieces that stay in the cache.
constexpr int64_t kPieceTokens = 16'384;

}  // namespace

absl::StatusOr<std::unique_ptr<Corpus>> Corpus::Open(const std::vector<std::string>& paths,
                                                     v1::DataSpec::Format format,
                                                     int64_t vocab_size,
                                                     const std::vector<std::string>& path_roots,
                                                     bool keeps_indices) {
  if (paths.empty()) {
    return absl::InvalidArgumentError("a corpus needs at least one file");
  }
  LASP_RETURN_IF_ERROR(
      AllowOpenFiles((keeps_indices ? 2 : 1) * static_cast<int64_t>(paths.size())));
  std::vector<MappedFile> files;
  files.reserve(paths.size());
  std::vector<int64_t> starts = {0};
  for (const std::string& path : paths) {
    LASP_ASSIGN_OR_RETURN(CorpusFile opened,
                          OpenCorpusFile(path, format, path_roots, CorpusCheck::kFull));
    if (!keeps_indices) {
      opened.index.reset();
    }
    if (opened.token_count > std::numeric_limits<int64_t>::max() - starts.back()) {
      return absl::InvalidArgumentError("the corpus holds more than 2^63 tokens");
    }
    starts.push_back(starts.back() + opened.token_count);
    LASP_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Map(std::move(opened)));
    files.push_back(std::move(mapped));
  }
  return std::unique_ptr<Corpus>(new Corpus(std::move(files), std::move(starts), vocab_size));
}

absl::Status Corpus::Read(int64_t begin, int64_t count, int32_t* out) const {
  if (begin < 0 || count < 0 || count > token_count() || begin > token_count() - count) {
    return absl::OutOfRangeError(
        absl::StrCat("tokens ", begin, " to ", begin + count, " of a corpus of ", token_count()));
  }
  size_t index = FileAt(begin);
  while (count > 0) {
    const int64_t here = std::min(count, starts_[index + 1] - begin);
    LASP_RETURN_IF_ERROR(ReadFile(files_[index], begin - starts_[index], here, out));
    begin += here;
    count -= here;
    out += here;
    ++index;
  }
  return absl::OkStatus();
}

size_t Corpus::FileAt(int64_t token) const {
  return static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), token) -
                             starts_.begin() - 1);
}

absl::Status Corpus::FindIndexedDocuments(int64_t begin, int64_t end,
                                          std::vector<int64_t>* starts) const {
  starts->clear();
  for (size_t index = FileAt(begin); index < files_.size() && starts_[index] < end; ++index) {
    const int64_t origin = starts_[index];
    LASP_RETURN_IF_ERROR(FindMegatronDocuments(
        files_[index].file(), std::max(begin, origin) - origin, end - origin, origin, starts));
  }
  return absl::OkStatus();
}

absl::Status Corpus::ReadFile(const MappedFile& file, int64_t begin, int64_t count,
                              int32_t* out) const {
  const TokenType type = file.file().type;
  std::vector<char> bytes(static_cast<size_t>(std::min(count, kPieceTokens) * TokenBytes(type)));
  for (int64_t done = 0; done < count; done += kPieceTokens) {
    const int64_t piece = std::min(kPieceTokens, count - done);
    LASP_RETURN_IF_ERROR(file.Read(begin + done, piece, bytes.data()));
    const StrayToken stray = DecodeTokens(type, bytes.data(), piece, vocab_size_, out + done);
    if (stray.index >= 0) {
      return StrayTokenError(file.file(), begin + done + stray.index, stray.token, vocab_size_);
    }
  }
  return absl::OkStatus();
}

}  // namespace lasp::worker
