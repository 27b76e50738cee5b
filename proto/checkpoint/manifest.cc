#include "proto/checkpoint/manifest.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/util/json_util.h>
#include <openssl/sha.h>

#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/checkpoint/block_digests.h"
#include "proto/checkpoint/extent_cover.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/spec_defaults.h"

namespace lasp {
namespace {

std::string Sha256(absl::string_view text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), sizeof(digest)));
}

absl::Status CheckShard(const lasp::v1::CheckpointShard& shard) {
  if (shard.file().empty() || shard.file() == "." || shard.file() == ".." ||
      shard.file().find('/') != std::string::npos || shard.file().find('\0') != std::string::npos) {
    return absl::DataLossError(
        absl::StrCat("a shard's file is called '", absl::CHexEscape(shard.file()), "'"));
  }
  if (shard.size_bytes() < 0 || shard.block_bytes() != kCheckpointBlockBytes ||
      static_cast<int64_t>(shard.block_digests().size()) != BlockCount(shard) * kBlockDigestBytes) {
    return absl::DataLossError(absl::StrCat("the digests of ", shard.file(), " are not those of ",
                                            shard.size_bytes(), " bytes in blocks of ",
                                            kCheckpointBlockBytes));
  }
  return absl::OkStatus();
}

}  // namespace

std::string CheckpointFolderName(int64_t step, int64_t generation) {
  return absl::StrCat("step-", step, ".gen-", generation);
}

std::string ShardFileName(int rank) { return absl::StrCat("rank-", rank, ".safetensors"); }

absl::StatusOr<std::string> ManifestText(const lasp::v1::CheckpointManifest& manifest) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.add_whitespace = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(manifest, &text, options);
  if (!status.ok()) {
    return absl::InternalError(absl::StrCat("writing a manifest: ", status.ToString()));
  }
  return text;
}

std::string ManifestDigest(absl::string_view text) { return Sha256(text); }

std::string SpecDigest(const lasp::v1::TrainingSpec& spec) {
  lasp::v1::TrainingSpec decides = spec;
  decides.clear_parallelism();
  decides.clear_recovery();
  decides.clear_checkpoint();
  decides.clear_device();
  decides.clear_memory();
  decides.clear_max_queue_duration();
  decides.clear_max_run_duration();
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    decides.SerializeToCodedStream(&coded);
  }
  return Sha256(bytes);
}

bool SameTraining(const lasp::v1::TrainingSpec& a, const lasp::v1::TrainingSpec& b) {
  lasp::v1::TrainingSpec whole_a = a;
  lasp::v1::TrainingSpec whole_b = b;
  FillDefaults(&whole_a);
  FillDefaults(&whole_b);
  return SpecDigest(whole_a) == SpecDigest(whole_b);
}

absl::Status CheckManifest(const lasp::v1::CheckpointManifest& manifest) {
  if (manifest.format_version() != kManifestVersion) {
    return absl::DataLossError(absl::StrCat("a manifest of version ", manifest.format_version(),
                                            ", not ", kManifestVersion));
  }
  if (manifest.step() < 1 || manifest.state().step() != manifest.step()) {
    return absl::DataLossError(absl::StrCat("a manifest of step ", manifest.step(),
                                            " with the state after step ",
                                            manifest.state().step()));
  }
  std::set<std::string> files;
  for (const lasp::v1::CheckpointShard& shard : manifest.shards()) {
    LASP_RETURN_IF_ERROR(CheckShard(shard));
    if (!files.insert(shard.file()).second) {
      return absl::DataLossError(absl::StrCat("two shards are called ", shard.file()));
    }
  }
  return CheckCover(manifest.tensors(), manifest.shards());
}

absl::StatusOr<lasp::v1::CheckpointManifest> ParseManifest(absl::string_view text) {
  if (static_cast<int64_t>(text.size()) > kMaxManifestBytes) {
    return absl::DataLossError(
        absl::StrCat("a manifest of ", text.size(), " bytes; at most ", kMaxManifestBytes));
  }
  google::protobuf::util::JsonParseOptions options;
  // A later release may say more.
  options.ignore_unknown_fields = true;
  lasp::v1::CheckpointManifest manifest;
  const auto status = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(text.data(), text.size()), &manifest, options);
  if (!status.ok()) {
    return absl::DataLossError(absl::StrCat("not a manifest: ", status.ToString()));
  }
  LASP_RETURN_IF_ERROR(CheckManifest(manifest));
  return manifest;
}

}  // namespace lasp
