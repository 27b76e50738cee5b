#include "tests/simulation/checkpoint_files.h"

#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/checkpoint/manifest.h"

namespace lasp::simulation {

lasp::v1::CheckpointShard CheckpointFiles::ShardOf(int64_t step, int64_t generation, int rank) {
  lasp::v1::CheckpointShard shard;
  shard.set_file(ShardFileName(rank));
  shard.set_size_bytes((generation * 1000 + step) * 1000 + rank);
  return shard;
}

std::string CheckpointFiles::NameOf(const std::string& folder) {
  return folder.substr(folder.rfind('/') + 1);
}

std::string CheckpointFiles::DigestOf(const lasp::v1::CheckpointManifest& manifest) {
  std::string digest =
      absl::StrCat(manifest.uid(), "/", manifest.step(), "/", manifest.generation());
  for (const lasp::v1::CheckpointShard& shard : manifest.shards()) {
    absl::StrAppend(&digest, "/", shard.file(), ":", shard.size_bytes());
  }
  return digest;
}

void CheckpointFiles::Damage(Random* random) {
  // In the order in which they came: their names are another time's.
  std::erase_if(names_, [this](const std::string& name) { return !folders_.contains(name); });
  if (names_.empty()) {
    return;
  }
  const auto folder =
      folders_.find(names_[static_cast<size_t>(random->Below(static_cast<int>(names_.size())))]);
  const auto shard = std::next(folder->second.shards.begin(),
                               random->Below(static_cast<int>(folder->second.shards.size())));
  context_->Say("a bit flips in ", NameOf(folder->first), "/", shard->first);
  folder->second.damaged.insert(shard->first);
}

void CheckpointFiles::Write(const std::string& folder, const lasp::v1::CheckpointShard& shard) {
  const auto [found, is_new] = folders_.try_emplace(folder);
  if (is_new) {
    names_.push_back(folder);
  }
  found->second.shards[shard.file()] = shard.size_bytes();
}

absl::StatusOr<std::string> CheckpointFiles::Commit(const std::string& folder,
                                                    const lasp::v1::CheckpointManifest& manifest) {
  if (broken()) {
    return absl::UnavailableError("the disk does not answer");
  }
  const auto found = folders_.find(folder);
  for (const lasp::v1::CheckpointShard& shard : manifest.shards()) {
    const bool there = found != folders_.end() && found->second.shards.contains(shard.file());
    if (!there || found->second.shards[shard.file()] != shard.size_bytes()) {
      return absl::DataLossError(absl::StrCat(folder, "/", shard.file(), " is not there"));
    }
  }
  folders_[folder].manifest = manifest;
  if (context_->plant() == Plant::kShortManifest && manifest.shards_size() > 1) {
    context_->Say("PLANTED: the manifest of ", NameOf(folder), " is a shard short");
    folders_[folder].manifest->mutable_shards()->RemoveLast();
  }
  return DigestOf(manifest);
}

absl::Status CheckpointFiles::Verify(const std::string& folder,
                                     const std::string& manifest_digest) const {
  if (broken()) {
    return absl::UnavailableError("the disk does not answer");
  }
  const auto found = folders_.find(folder);
  if (found == folders_.end() || !found->second.manifest.has_value() ||
      DigestOf(*found->second.manifest) != manifest_digest) {
    return absl::DataLossError(absl::StrCat(folder, " has not the manifest that was committed"));
  }
  for (const lasp::v1::CheckpointShard& shard : found->second.manifest->shards()) {
    if (!found->second.shards.contains(shard.file()) ||
        found->second.damaged.contains(shard.file())) {
      return absl::DataLossError(absl::StrCat(folder, "/", shard.file(), " is damaged"));
    }
  }
  return absl::OkStatus();
}

void CheckpointFiles::Remove(const std::string& folder) { folders_.erase(folder); }

void CheckpointFiles::RemoveAll(const std::string& parent) {
  std::erase_if(folders_, [prefix = parent + "/"](const auto& entry) {
    return absl::StartsWith(entry.first, prefix);
  });
}

void CheckpointFiles::RemoveUnfinished(const std::string& parent, int64_t generation,
                                       const std::set<std::string>& known) {
  std::erase_if(folders_, [&, prefix = parent + "/"](const auto& entry) {
    const std::string name = NameOf(entry.first);
    int64_t begun_by = 0;
    return absl::StartsWith(entry.first, prefix) && !entry.second.manifest.has_value() &&
           !known.contains(name) && absl::SimpleAtoi(name.substr(name.rfind('-') + 1), &begun_by) &&
           begun_by <= generation;
  });
}

std::string CheckpointFiles::Fault(const std::string& folder, int shard_count,
                                   const std::string& manifest_digest) const {
  const auto found = folders_.find(folder);
  if (found == folders_.end() || !found->second.manifest.has_value()) {
    return "it has no manifest";
  }
  const lasp::v1::CheckpointManifest& manifest = *found->second.manifest;
  if (DigestOf(manifest) != manifest_digest || manifest.shards_size() != shard_count) {
    return absl::StrCat("its manifest names ", manifest.shards_size(), " shards of ", shard_count,
                        ", or others");
  }
  for (int rank = 0; rank < shard_count; ++rank) {
    const lasp::v1::CheckpointShard wanted = ShardOf(manifest.step(), manifest.generation(), rank);
    const lasp::v1::CheckpointShard& named = manifest.shards(rank);
    const auto shard = found->second.shards.find(wanted.file());
    if (named.file() != wanted.file() || named.size_bytes() != wanted.size_bytes() ||
        shard == found->second.shards.end() || shard->second != wanted.size_bytes()) {
      return absl::StrCat("the shard of rank ", rank, " is not the one that it wrote");
    }
  }
  return "";
}

std::set<std::string> CheckpointFiles::Committed() const {
  std::set<std::string> names;
  for (const auto& [name, folder] : folders_) {
    if (folder.manifest.has_value()) {
      names.insert(name);
    }
  }
  return names;
}

}  // namespace lasp::simulation
