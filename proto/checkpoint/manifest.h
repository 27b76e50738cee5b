// The manifest: the file whose presence makes a folder of shards a checkpoint.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lasp/v1/checkpoint.pb.h"

namespace lasp {

inline constexpr char kManifestFile[] = "manifest.json";
// `sha256sum --check` reads it.
inline constexpr char kManifestDigestFile[] = "manifest.json.sha256";
inline constexpr int kManifestVersion = 1;
// Larger ones are refused: the digests of 16 TB are 64 MiB.
inline constexpr int64_t kMaxManifestBytes = int64_t{256} << 20;

// `step-S.gen-G`.
std::string CheckpointFolderName(int64_t step, int64_t generation);
// `rank-R.safetensors`.
std::string ShardFileName(int rank);

// As it is on the disk: JSON with the proto's field names.
absl::StatusOr<std::string> ManifestText(const lasp::v1::CheckpointManifest& manifest);

// Of a manifest's text: SHA-256 in hexadecimal digits.
std::string ManifestDigest(absl::string_view text);

// Of what decides the losses in a spec with its defaults written out
// (CheckpointManifest.spec_digest).
std::string SpecDigest(const lasp::v1::TrainingSpec& spec);

// Whether training by `b` may go on from a checkpoint of a job of `a`: what decides the losses is
// the same once all defaults are written out, those too that have come since `a` or `b` was stored.
bool SameTraining(const lasp::v1::TrainingSpec& a, const lasp::v1::TrainingSpec& b);

// DATA_LOSS where it is no manifest, or not one of a whole checkpoint: other versions, file names
// that are more than a name, digests that are not of the files' sizes, tensors that are not covered
// once.
absl::StatusOr<lasp::v1::CheckpointManifest> ParseManifest(absl::string_view text);

// The last of these, for a manifest that was not read.
absl::Status CheckManifest(const lasp::v1::CheckpointManifest& manifest);

}  // namespace lasp
