// The files of a corpus as one stream of tokens, memory-mapped. Tokens are copied out under a
// guard, so that a file that shrinks or changes under a run is an error with the file's name and
// never a SIGBUS.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lasp/v1/training_spec.pb.h"
#include "worker/data/mapped_file.h"

namespace lasp::worker {

// Immutable once open; Read is thread-safe.
class Corpus {
 public:
  // Opens and maps every file, in order. Errors as OpenCorpusFile; INVALID_ARGUMENT for no file,
  // RESOURCE_EXHAUSTED for more than the host lets a process open. `keeps_indices`: for
  // FindIndexedDocuments.
  static absl::StatusOr<std::unique_ptr<Corpus>> Open(const std::vector<std::string>& paths,
                                                      lasp::v1::DataSpec::Format format,
                                                      int64_t vocab_size,
                                                      const std::vector<std::string>& path_roots,
                                                      bool keeps_indices = false);

  int64_t token_count() const { return starts_.back(); }

  // Copies tokens [begin, begin + count) of the stream, which must lie in it, to `out`.
  // INVALID_ARGUMENT for a token outside the vocabulary, with the file, the position in it, the
  // token and the vocabulary; DATA_LOSS for a file that has changed, shrunk or gone since it was
  // opened, or cannot be read.
  absl::Status Read(int64_t begin, int64_t count, int32_t* out) const;

  // The tokens of the stream in [begin, end), which must lie in it, at which documents start as the
  // indices of FORMAT_MEGATRON have it, ascending, into `starts`. Errors as FindMegatronDocuments.
  absl::Status FindIndexedDocuments(int64_t begin, int64_t end, std::vector<int64_t>* starts) const;

 private:
  Corpus(std::vector<MappedFile> files, std::vector<int64_t> starts, int64_t vocab_size)
      : vocab_size_(vocab_size), files_(std::move(files)), starts_(std::move(starts)) {}

  // The last file that starts at or before a token of the stream.
  size_t FileAt(int64_t token) const;
  absl::Status ReadFile(const MappedFile& file, int64_t begin, int64_t count, int32_t* out) const;

  const int64_t vocab_size_;
  const std::vector<MappedFile> files_;
  // The stream's position of each file's first token, and of the end.
  const std::vector<int64_t> starts_;
};

}  // namespace lasp::worker
