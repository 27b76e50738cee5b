// One file of tokens: opened, its header believed only as far as the file's size bears it out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lasp/v1/training_spec.pb.h"
#include "proto/spec/unique_fd.h"

namespace lasp {

// How one token is stored; little endian.
enum class TokenType { kUint8, kInt8, kUint16, kInt16, kUint32, kInt32, kInt64 };

int64_t TokenBytes(TokenType type);

// What must not change while a file is read.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t size = 0;
  int64_t modified_ns = 0;

  bool operator==(const FileIdentity&) const = default;
};

// `fd`'s identity now. The error names `path`; DATA_LOSS where the file has been deleted.
absl::StatusOr<FileIdentity> IdentifyFile(int fd, const std::string& path);

// Megatron's .idx, open: where the documents of its .bin start (megatron_documents.h).
struct CorpusIndex {
  // Absolute, for people.
  std::string path;
  UniqueFd fd;
  int64_t bytes = 0;
  int64_t sequences = 0;
  int64_t documents = 0;     // entries, of which the last is behind the last document
  int64_t offsets_at = 0;    // in the file: each sequence's first byte in the .bin
  int64_t documents_at = 0;  // each document's first sequence
};

// `token_count` tokens from byte `data_offset` on.
struct CorpusFile {
  // Absolute, for people: the file that holds the tokens.
  std::string path;
  UniqueFd fd;
  FileIdentity identity;
  TokenType type = TokenType::kUint8;
  int64_t data_offset = 0;
  int64_t token_count = 0;
  // Of FORMAT_MEGATRON.
  std::optional<CorpusIndex> index = {};
};

// How much of a Megatron index is read: all of it, or its start and end only where it is long (for
// an early answer).
enum class CorpusCheck { kFull, kQuick };

// Opens `path` (looked up as in path_lookup.h) and checks it against `format`, in constant memory.
// Besides the errors of the lookup: INVALID_ARGUMENT where the file is of another format or empty,
// DATA_LOSS where it is truncated or its header does not agree with its size. Each names the file,
// what is wrong and how to mend it. Megatron: `path` is the .bin or its prefix; the sequences must
// lie one after another and fill the .bin, as Megatron writes them. Thread-safe.
absl::StatusOr<CorpusFile> OpenCorpusFile(absl::string_view path, lasp::v1::DataSpec::Format format,
                                          const std::vector<std::string>& path_roots,
                                          CorpusCheck check);

}  // namespace lasp
