// How fast a share of a checkpoint gets to a disk and back, beside what the disk does on its own.
// Prints JSON.
//   checkpoint_disk FOLDER [MIB]
// A share of 1024 MiB; what lies in FOLDER beforehand stays.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/spec_defaults.h"
#include "proto/spec/unique_fd.h"
#include "tests/worker/checkpoint/commit.h"
#include "tests/worker/parallel/local_ranks.h"
#include "worker/checkpoint/checkpoint_writer.h"
#include "worker/checkpoint/restore.h"

namespace lasp::worker {
namespace {

constexpr char kFolder[] = "bench";

double Seconds() { return absl::ToDoubleSeconds(SystemClock().Monotonic()); }

// Out of the page cache, so that reading asks the disk.
absl::Status Forget(const std::string& path) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return file.valid() && fdatasync(file.get()) == 0 &&
                 posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED) == 0
             ? absl::OkStatus()
             : absl::InternalError(absl::StrCat("cannot evict ", path));
}

absl::Status PlainWrite(const std::string& path, const std::vector<float>& values) {
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  const auto* data = reinterpret_cast<const char*>(values.data());
  size_t left = values.size() * sizeof(float);
  while (left > 0) {
    const ssize_t count = write(file.get(), data, left);
    if (count <= 0) {
      return absl::InternalError(absl::StrCat("cannot write ", path));
    }
    data += count;
    left -= static_cast<size_t>(count);
  }
  return fdatasync(file.get()) == 0 ? absl::OkStatus() : absl::InternalError("cannot sync");
}

absl::Status PlainRead(const std::string& path, std::vector<float>* values) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  auto* data = reinterpret_cast<char*>(values->data());
  size_t left = values->size() * sizeof(float);
  while (left > 0) {
    const ssize_t count = read(file.get(), data, left);
    if (count <= 0) {
      return absl::InternalError(absl::StrCat("cannot read ", path));
    }
    data += count;
    left -= static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

struct Times {
  double save = 0;
  double stall = 0;
  double restore = 0;
  double plain_write = 0;
  double plain_read = 0;
};

absl::Status Measure(const std::string& root, const ParameterLayout& layout, LocalRank& rank,
                     Times* times) {
  const int64_t count = layout.count();
  std::vector<float> values(static_cast<size_t>(3 * count), 0.5f);
  const auto part = [&](int64_t index) {
    return Tensor{values.data() + index * count, DType::kFloat32, 1, count, count};
  };
  const TrainingTensors tensors = {part(0), part(1), part(2)};
  lasp::v1::TrainingSpec spec;
  FillDefaults(&spec);
  lasp::v1::ShardWritten shard;
  lasp::v1::Fence fence;
  fence.set_generation(getpid());
  LASP_ASSIGN_OR_RETURN(
      const auto writer,
      CheckpointWriter::Create(
          {.root = root,
           .folder = kFolder,
           .fence = fence,
           .world_size = 1,
           .layout = &layout,
           .backend = rank.backend,
           .tensors = tensors,
           .on_shard = [&](const lasp::v1::ShardWritten& written) { shard = written; }}));
  lasp::v1::TrainingState state;
  state.set_step(1);
  double begin = Seconds();
  writer->Begin(state);
  times->stall = Seconds() - begin;
  if (!writer->WaitUntilIdle(absl::Minutes(10))) {
    return absl::DeadlineExceededError("the disk hangs");
  }
  times->save = Seconds() - begin;
  LASP_ASSIGN_OR_RETURN(const lasp::v1::CheckpointReference reference,
                        CommitCheckpoint(root, kFolder, spec, {shard}));
  const std::string file = absl::StrCat(root, "/", reference.folder(), "/", shard.shard().file());
  LASP_RETURN_IF_ERROR(Forget(file));
  begin = Seconds();
  LASP_RETURN_IF_ERROR(Restore({.root = root,
                                .reference = reference,
                                .spec = spec,
                                .layout = &layout,
                                .backend = rank.backend,
                                .world = rank.world,
                                .tensors = tensors,
                                .give_up = [] { return false; }})
                           .status());
  times->restore = Seconds() - begin;
  const std::string plain = absl::StrCat(root, "/", reference.folder(), "/plain");
  begin = Seconds();
  LASP_RETURN_IF_ERROR(PlainWrite(plain, values));
  times->plain_write = Seconds() - begin;
  LASP_RETURN_IF_ERROR(Forget(plain));
  begin = Seconds();
  LASP_RETURN_IF_ERROR(PlainRead(plain, &values));
  times->plain_read = Seconds() - begin;
  return absl::OkStatus();
}

int Main(const std::string& folder, int64_t mebibytes) {
  const std::string root = absl::StrCat(folder, "/checkpoint-disk-", getpid());
  std::filesystem::create_directories(root + "/" + kFolder);
  // An embedding of the size asked for, and next to nothing else.
  constexpr int64_t kHidden = 1024;
  const int64_t elements = mebibytes * (int64_t{1} << 20) / 12;
  const ParameterLayout layout(
      {.layers = 1,
       .hidden_size = kHidden,
       .heads = 8,
       .glu_size = 8,
       .vocab_size = std::max<int64_t>(1, elements / kHidden - 5 * kHidden),
       .tie_embeddings = true});
  Times times;
  const absl::Status status =
      RunLocalRanks({}, [&](LocalRank& rank) { return Measure(root, layout, rank, &times); })[0];
  std::filesystem::remove_all(root);
  if (!status.ok()) {
    std::fprintf(stderr, "checkpoint_disk: %s\n", status.ToString().c_str());
    return 1;
  }
  const double megabytes = static_cast<double>(12 * layout.count()) / 1e6;
  std::printf(
      "{\"benchmark\": \"checkpoint_disk\", \"megabytes\": %.0f, \"save_mb_per_second\": %.0f, "
      "\"plain_write_mb_per_second\": %.0f, \"restore_mb_per_second\": %.0f, "
      "\"plain_read_mb_per_second\": %.0f, \"stall_ms\": %.1f}\n",
      megabytes, megabytes / times.save, megabytes / times.plain_write, megabytes / times.restore,
      megabytes / times.plain_read, times.stall * 1e3);
  return 0;
}

}  // namespace
}  // namespace lasp::worker

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "checkpoint_disk FOLDER [MIB]\n");
    return 2;
  }
  return lasp::worker::Main(argv[1], argc > 2 ? std::atoll(argv[2]) : 1024);
}
