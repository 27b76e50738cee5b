#include "proto/spec/corpus_file.h"

#include <sys/stat.h>

#include <bit>
#include <cerrno>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/file_reader.h"
#include "proto/spec/llmc_header.h"
#include "proto/spec/megatron_index.h"
#include "proto/spec/path_lookup.h"

namespace lasp {
namespace {

static_assert(std::endian::native == std::endian::little, "corpora are little endian");

absl::StatusOr<CorpusFile> OpenTokens(absl::string_view path,
                                      const std::vector<std::string>& path_roots) {
  LASP_ASSIGN_OR_RETURN(OpenedFile opened, OpenBeneathRoots(path, path_roots));
  CorpusFile file;
  file.path = std::move(opened.path);
  file.fd = std::move(opened.fd);
  LASP_ASSIGN_OR_RETURN(file.identity, IdentifyFile(file.fd.get(), file.path));
  if (file.identity.size == 0) {
    return absl::InvalidArgumentError(absl::StrCat(file.path, " is empty: write tokens to it"));
  }
  return file;
}

// The whole file is tokens.
absl::StatusOr<CorpusFile> OpenHeaderless(absl::string_view path, TokenType type,
                                          const std::vector<std::string>& path_roots) {
  LASP_ASSIGN_OR_RETURN(CorpusFile file, OpenTokens(path, path_roots));
  file.type = type;
  if (file.identity.size % TokenBytes(type) != 0) {
    return absl::DataLossError(absl::StrCat(
        file.path, " holds ", file.identity.size, " bytes, not a multiple of ", TokenBytes(type),
        ": it is truncated or of another format, copy it again or set spec.data.format"));
  }
  file.token_count = file.identity.size / TokenBytes(type);
  return file;
}

absl::StatusOr<CorpusFile> OpenLlmc(absl::string_view path,
                                    const std::vector<std::string>& path_roots) {
  LASP_ASSIGN_OR_RETURN(CorpusFile file, OpenTokens(path, path_roots));
  const FileReader reader(file.fd.get(), file.path, file.identity.size);
  LASP_ASSIGN_OR_RETURN(const LlmcHeader header, ReadLlmcHeader(reader));
  file.type = header.type;
  file.data_offset = kLlmcHeaderBytes;
  file.token_count = header.token_count;
  return file;
}

absl::StatusOr<CorpusFile> OpenMegatron(absl::string_view path,
                                        const std::vector<std::string>& path_roots,
                                        CorpusCheck check) {
  absl::string_view prefix = path;
  absl::ConsumeSuffix(&prefix, ".bin");
  LASP_ASSIGN_OR_RETURN(OpenedFile index,
                        OpenBeneathRoots(absl::StrCat(prefix, ".idx"), path_roots));
  LASP_ASSIGN_OR_RETURN(CorpusFile file, OpenTokens(absl::StrCat(prefix, ".bin"), path_roots));
  LASP_ASSIGN_OR_RETURN(const FileIdentity index_identity,
                        IdentifyFile(index.fd.get(), index.path));
  const FileReader reader(index.fd.get(), index.path, index_identity.size);
  LASP_ASSIGN_OR_RETURN(const MegatronIndex summary, ReadMegatronIndex(reader, check));
  file.type = summary.type;
  if (summary.data_bytes != file.identity.size) {
    return absl::DataLossError(
        absl::StrCat(file.path, " holds ", file.identity.size, " bytes, but its index ", index.path,
                     " names ", summary.data_bytes,
                     ": one of the two is truncated or belongs to another corpus, copy both "
                     "again"));
  }
  file.token_count = file.identity.size / TokenBytes(file.type);
  file.index = CorpusIndex{.path = std::move(index.path),
                           .fd = std::move(index.fd),
                           .bytes = index_identity.size,
                           .sequences = summary.sequences,
                           .documents = summary.documents,
                           .offsets_at = summary.offsets_at,
                           .documents_at = summary.documents_at};
  return file;
}

}  // namespace

int64_t TokenBytes(TokenType type) {
  switch (type) {
    case TokenType::kUint8:
    case TokenType::kInt8:
      return 1;
    case TokenType::kUint16:
    case TokenType::kInt16:
      return 2;
    case TokenType::kUint32:
    case TokenType::kInt32:
      return 4;
    case TokenType::kInt64:
      return 8;
  }
  return 1;
}

absl::StatusOr<FileIdentity> IdentifyFile(int fd, const std::string& path) {
  struct stat status = {};
  if (fstat(fd, &status) != 0) {
    return absl::DataLossError(
        absl::StrCat("cannot stat ", path, ": ", std::generic_category().message(errno)));
  }
  if (status.st_nlink == 0) {
    return absl::DataLossError(absl::StrCat(
        path, " has been deleted or replaced: leave a corpus alone while jobs use it"));
  }
  return FileIdentity{
      .device = status.st_dev,
      .inode = status.st_ino,
      .size = status.st_size,
      .modified_ns = status.st_mtim.tv_sec * int64_t{1'000'000'000} + status.st_mtim.tv_nsec};
}

absl::StatusOr<CorpusFile> OpenCorpusFile(absl::string_view path, v1::DataSpec::Format format,
                                          const std::vector<std::string>& path_roots,
                                          CorpusCheck check) {
  switch (format) {
    case v1::DataSpec::FORMAT_BYTES:
      return OpenHeaderless(path, TokenType::kUint8, path_roots);
    case v1::DataSpec::FORMAT_UINT16:
      return OpenHeaderless(path, TokenType::kUint16, path_roots);
    case v1::DataSpec::FORMAT_LLMC:
      return OpenLlmc(path, path_roots);
    case v1::DataSpec::FORMAT_MEGATRON:
      return OpenMegatron(path, path_roots, check);
    default:
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": unknown format ", static_cast<int>(format)));
  }
}

}  // namespace lasp
