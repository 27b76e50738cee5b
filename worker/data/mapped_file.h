// A file mapped read-only.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "proto/spec/corpus_file.h"

namespace lasp::worker {

// Owns the file and its mapping. Read is thread-safe.
class MappedFile {
 public:
  static absl::StatusOr<MappedFile> Map(CorpusFile file);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  const CorpusFile& file() const { return file_; }

  // Copies tokens [begin, begin + count) as they lie in the file. DATA_LOSS, with the file's name,
  // where it is no longer the file that was opened or cannot be read.
  absl::Status Read(int64_t begin, int64_t count, char* out) const;

 private:
  MappedFile(CorpusFile file, const char* data) : file_(std::move(file)), data_(data) {}

  CorpusFile file_;
  const char* data_;
};

}  // namespace lasp::worker
