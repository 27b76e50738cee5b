#include "worker/checkpoint/rebuild.h"

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "proto/checkpoint/block_digests.h"
#include "proto/checkpoint/checkpoint_folder.h"
#include "proto/checkpoint/left_state_folder.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/file_reader.h"
#include "proto/spec/open_beneath.h"
#include "proto/spec/unique_fd.h"
#include "worker/checkpoint/shared_reading.h"

namespace lasp::worker {
namespace {

constexpr int64_t kElementBytes = sizeof(float);
// 64 MiB from one rank to the others.
constexpr int64_t kElementsAtOnce = int64_t{16} << 20;

int64_t CountOf(const lasp::v1::RebuildPart& part) {
  int64_t count = 0;
  for (const lasp::v1::StatePiece& piece : part.pieces()) {
    count += piece.count();
  }
  return count;
}

// That the parts make a whole and have readers: no rank then reads or writes beside its tensors.
absl::Status CheckParts(const RebuildOptions& options) {
  std::map<int64_t, int64_t> pieces;
  for (const lasp::v1::RebuildPart& part : options.rebuild.parts()) {
    for (const lasp::v1::StatePiece& piece : part.pieces()) {
      if (piece.count() < 0 || !pieces.emplace(piece.begin(), piece.count()).second) {
        return absl::UnavailableError(
            absl::StrCat("the piece at element ", piece.begin(), " does not fit the others"));
      }
    }
    if (part.reader() < 0 || part.reader() >= options.world->size() ||
        part.shard().block_bytes() != kCheckpointBlockBytes ||
        part.shard().size_bytes() !=
            static_cast<int64_t>(options.tensors.size()) * CountOf(part) * kElementBytes) {
      return absl::UnavailableError(
          absl::StrCat(part.shard().file(), " does not fit what it should hold"));
    }
  }
  int64_t end = 0;
  for (const auto& [begin, count] : pieces) {
    if (begin != end) {
      return absl::UnavailableError(
          absl::StrCat("the piece at element ", begin, " does not fit that before it"));
    }
    end += count;
  }
  return end == options.layout->count()
             ? absl::OkStatus()
             : absl::UnavailableError(absl::StrCat("the parts have ", end, " elements, not the ",
                                                   options.layout->count(), " of the model"));
}

class Rebuilding {
 public:
  explicit Rebuilding(const RebuildOptions& options) : options_(options) {}

  // Opens what this rank is to read, and believes none of it before it has been looked at.
  absl::Status Check(const std::string& folder_name) {
    LASP_RETURN_IF_ERROR(CheckParts(options_));
    for (const lasp::v1::RebuildPart& part : options_.rebuild.parts()) {
      if (part.reader() != options_.world->rank()) {
        continue;
      }
      const absl::StatusOr<UniqueFd> folder = OpenFolderBeneath(options_.memory_root, folder_name);
      if (!folder.ok()) {
        return absl::UnavailableError(folder.status().message());
      }
      UniqueFd file(OpenBeneath(folder->get(), part.shard().file()));
      if (!file.valid()) {
        return absl::UnavailableError(absl::StrCat("opening ", part.shard().file(), ": ",
                                                   absl::ErrnoToStatus(errno, "").message()));
      }
      LASP_RETURN_IF_ERROR(CheckFile(part.shard(), file.get()));
      files_[part.shard().file()] = std::move(file);
    }
    return absl::OkStatus();
  }

  // All ranks alike: piece by piece from its reader to those that have it.
  absl::Status Exchange() {
    LASP_ASSIGN_OR_RETURN(
        buffer_, options_.backend->Allocate(std::min(kElementsAtOnce, options_.layout->count()) *
                                            kElementBytes));
    for (const lasp::v1::RebuildPart& part : options_.rebuild.parts()) {
      int64_t offset = 0;
      for (const Tensor& tensor : options_.tensors) {
        for (const lasp::v1::StatePiece& piece : part.pieces()) {
          LASP_RETURN_IF_ERROR(ExchangePiece(part, piece, offset, tensor));
          offset += piece.count();
        }
      }
    }
    return options_.backend->Synchronize();
  }

 private:
  absl::Status CheckFile(const lasp::v1::CheckpointShard& shard, int descriptor) {
    std::vector<char> block(static_cast<size_t>(shard.block_bytes()));
    for (int64_t index = 0; index < BlockCount(shard); ++index) {
      if (options_.give_up()) {
        return absl::CancelledError("asked to leave");
      }
      const int64_t offset = index * shard.block_bytes();
      const absl::StatusOr<int64_t> count =
          ReadUpTo(descriptor, offset, std::min(shard.block_bytes(), shard.size_bytes() - offset),
                   block.data());
      absl::Status checked = count.status();
      if (checked.ok()) {
        checked = CheckBlock(shard, index, block.data(), static_cast<size_t>(*count));
      }
      if (!checked.ok()) {
        return absl::UnavailableError(checked.message());
      }
      options_.on_block();
    }
    return absl::OkStatus();
  }

  // `offset`: elements of the file before the piece.
  absl::Status ExchangePiece(const lasp::v1::RebuildPart& part, const lasp::v1::StatePiece& piece,
                             int64_t offset, Tensor tensor) {
    std::vector<float> read;
    for (int64_t done = 0; done < piece.count(); done += kElementsAtOnce) {
      const int64_t count = std::min(piece.count() - done, kElementsAtOnce);
      const Tensor elements{buffer_->data(), DType::kFloat32, 1, count, count};
      if (part.reader() == options_.world->rank()) {
        read.resize(static_cast<size_t>(count));
        LASP_ASSIGN_OR_RETURN(const int64_t bytes, ReadUpTo(files_[part.shard().file()].get(),
                                                            (offset + done) * kElementBytes,
                                                            count * kElementBytes, read.data()));
        if (bytes != count * kElementBytes) {
          return absl::UnavailableError(absl::StrCat(part.shard().file(), " has become shorter"));
        }
        options_.backend->CopyFromHost(read.data(), elements);
      }
      LASP_RETURN_IF_ERROR(options_.world->Broadcast(elements, part.reader()).Wait());
      Keep(elements, piece.begin() + done, tensor);
      options_.on_block();
    }
    return absl::OkStatus();
  }

  // What of these elements, which begin at `begin`, this rank has.
  void Keep(Tensor elements, int64_t begin, Tensor tensor) {
    const std::vector<TensorShare> all = {{.begin = 0, .count = options_.layout->count()}};
    for (const TensorShare& share : options_.owned.has_value() ? *options_.owned : all) {
      const int64_t from = std::max(begin, share.begin);
      const int64_t end = std::min(begin + elements.columns, share.begin + share.count);
      if (from < end) {
        options_.backend->Convert(
            elements.Columns(from - begin, end - from).Reshape(1, end - from),
            tensor.Columns(share.local + from - share.begin, end - from).Reshape(1, end - from));
      }
    }
  }

  const RebuildOptions& options_;
  // This rank's, by name.
  std::map<std::string, UniqueFd> files_;
  std::unique_ptr<DeviceBuffer> buffer_;
};

}  // namespace

absl::StatusOr<lasp::v1::TrainingState> RebuildState(const RebuildOptions& options) {
  const std::string folder = LeftStateFolder(options.uid, options.rebuild.generation());
  Rebuilding rebuilding(options);
  absl::Status own = rebuilding.Check(folder);
  if (!own.ok()) {
    own = absl::Status(own.code(), absl::StrCat("state left in ", folder, ": ", own.message()));
  }
  LASP_RETURN_IF_ERROR(Agree({.what = absl::StrCat("take up the state left in ", folder),
                              .layout = options.layout,
                              .backend = options.backend,
                              .world = options.world,
                              .give_up = options.give_up},
                             own));
  LASP_RETURN_IF_ERROR(rebuilding.Exchange());
  return options.rebuild.state();
}

}  // namespace lasp::worker
