#include "worker/data/mapped_file.h"

#include <sys/mman.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "worker/data/sigbus_guard.h"

namespace lasp::worker {

absl::StatusOr<MappedFile> MappedFile::Map(CorpusFile file) {
  const auto bytes = static_cast<size_t>(file.identity.size);
  void* const data = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.fd.get(), 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map ", file.path, " (", bytes,
                     " bytes): ", std::generic_category().message(errno)));
  }
  return MappedFile(std::move(file), static_cast<const char*>(data));
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : file_(std::move(other.file_)), data_(std::exchange(other.data_, nullptr)) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    munmap(const_cast<char*>(data_), static_cast<size_t>(file_.identity.size));
  }
}

absl::Status MappedFile::Read(int64_t begin, int64_t count, char* out) const {
  const int64_t width = TokenBytes(file_.type);
  const bool copied = CopyFromMapping(out, data_ + file_.data_offset + begin * width,
                                      static_cast<size_t>(count * width));
  // Looked at after the copy: a write sets the time of modification before it changes data, so a
  // file that still is what it was has not given a byte of anything else.
  LASP_ASSIGN_OR_RETURN(const FileIdentity now, IdentifyFile(file_.fd.get(), file_.path));
  if (now.size != file_.identity.size) {
    return absl::DataLossError(absl::StrCat(file_.path, " has changed from ", file_.identity.size,
                                            " to ", now.size,
                                            " bytes since the job started: leave a corpus alone "
                                            "while jobs use it"));
  }
  if (now != file_.identity) {
    return absl::DataLossError(
        absl::StrCat(file_.path,
                     " has been modified since the job started: leave a corpus alone "
                     "while jobs use it"));
  }
  if (!copied) {
    return absl::DataLossError(
        absl::StrCat(file_.path, " cannot be read near token ", begin, ": check its disk"));
  }
  return absl::OkStatus();
}

}  // namespace lasp::worker
