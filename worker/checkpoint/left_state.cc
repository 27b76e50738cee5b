#include "worker/checkpoint/left_state.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/bf16_rounding.h"
#include "proto/checkpoint/block_digests.h"
#include "proto/checkpoint/left_state_folder.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/unique_fd.h"
#include "worker/checkpoint/checkpoint_folder.h"
#include "worker/checkpoint/free_memory.h"

namespace lasp::worker {
namespace {

constexpr int64_t kElementsAtATime = kCheckpointBlockBytes / static_cast<int64_t>(sizeof(float));

// Elements: 768 MiB of masters and moments.
constexpr int64_t kLeastShare = int64_t{64} << 20;

absl::Status WriteAll(int descriptor, const char* data, size_t size, absl::string_view path) {
  while (size > 0) {
    const ssize_t count = write(descriptor, data, size);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("writing ", path));
    }
    data += count;
    size -= static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

// The values of a contiguous tensor of fp32 or bf16.
absl::Status ReadFp32(Tensor tensor, Backend& backend, std::vector<float>* values) {
  values->resize(static_cast<size_t>(tensor.count()));
  if (tensor.dtype != DType::kBFloat16) {
    backend.CopyToHost(tensor, values->data());
    return backend.Synchronize();
  }
  std::vector<uint16_t> bits(values->size());
  backend.CopyToHost(tensor, bits.data());
  LASP_RETURN_IF_ERROR(backend.Synchronize());
  std::transform(bits.begin(), bits.end(), values->begin(), kernels::FromBf16Bits);
  return absl::OkStatus();
}

absl::Status WritePiece(const LeaveOptions& options, Tensor piece, int descriptor,
                        absl::string_view path, BlockDigester* digester) {
  std::vector<float> block;
  for (int64_t done = 0; done < piece.columns; done += kElementsAtATime) {
    const int64_t count = std::min(kElementsAtATime, piece.columns - done);
    LASP_RETURN_IF_ERROR(
        ReadFp32(piece.Columns(done, count).Reshape(1, count), *options.backend, &block));
    const size_t bytes = block.size() * sizeof(float);
    digester->Add(block.data(), bytes);
    LASP_RETURN_IF_ERROR(
        WriteAll(descriptor, reinterpret_cast<const char*>(block.data()), bytes, path));
    options.on_block();
  }
  return absl::OkStatus();
}

absl::Status WriteTensors(const LeaveOptions& options, int descriptor, absl::string_view path,
                          BlockDigester* digester) {
  for (const Tensor& tensor : options.tensors) {
    for (const TensorShare& share : options.shares) {
      LASP_RETURN_IF_ERROR(WritePiece(options, tensor.Columns(share.local, share.count), descriptor,
                                      path, digester));
    }
  }
  return absl::OkStatus();
}

}  // namespace

TensorShare LeftShareOf(int64_t elements, int world_size, int rank) {
  const auto shares =
      static_cast<int>(std::clamp<int64_t>(elements / kLeastShare, 1, std::max(1, world_size / 2)));
  return ShareOf(elements, shares, rank % shares);
}

absl::StatusOr<lasp::v1::StateLeft> LeaveState(const LeaveOptions& options,
                                               const lasp::v1::TrainingState& state) {
  int64_t bytes = 0;
  lasp::v1::StateLeft left;
  for (const TensorShare& share : options.shares) {
    bytes += static_cast<int64_t>(options.tensors.size() * sizeof(float)) * share.count;
    lasp::v1::StatePiece& piece = *left.add_pieces();
    piece.set_begin(share.begin);
    piece.set_count(share.count);
  }
  if (const int64_t free = FreeMemoryBytes(); bytes > free / 2) {
    return absl::ResourceExhaustedError(absl::StrCat("leaving ", bytes,
                                                     " bytes would take more than half of the ",
                                                     free, " bytes of memory that are left"));
  }
  const std::string name = LeftStateFolder(options.fence.uid(), options.fence.generation());
  LASP_ASSIGN_OR_RETURN(const UniqueFd folder, MakeFolders(options.memory_root, name));
  const std::string file_name = absl::StrCat("rank-", options.fence.rank(), ".state");
  const std::string path = absl::StrCat(options.memory_root, "/", name, "/", file_name);
  const UniqueFd file(openat(folder.get(), file_name.c_str(),
                             O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
                             S_IRUSR | S_IWUSR));
  if (!file.valid()) {
    return absl::ErrnoToStatus(errno, absl::StrCat("opening ", path));
  }
  BlockDigester digester;
  if (absl::Status written = WriteTensors(options, file.get(), path, &digester); !written.ok()) {
    (void)unlinkat(folder.get(), file_name.c_str(), 0);
    return written;
  }
  *left.mutable_state() = state;
  left.set_total_count(options.elements);
  left.mutable_shard()->set_file(file_name);
  left.mutable_shard()->set_size_bytes(bytes);
  left.mutable_shard()->set_block_bytes(kCheckpointBlockBytes);
  left.mutable_shard()->set_block_digests(digester.Finish());
  return left;
}

}  // namespace lasp::worker
