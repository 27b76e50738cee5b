// The versions of the worker plane that each end speaks, and the one that both use.
#pragma once

#include <algorithm>
#include <optional>
#include <string>

#include "lasp/v1/worker_service.pb.h"

namespace lasp {

struct ProtocolRange {
  int oldest = 0;
  int newest = 0;

  // "1", or "1 to 2".
  std::string ToString() const {
    return oldest == newest ? std::to_string(oldest)
                            : std::to_string(oldest) + " to " + std::to_string(newest);
  }
};

// Of this build. A release speaks what the release before it spoke, so that hosts can be upgraded
// one by one; a version goes when nothing of the release before is left that speaks only it.
inline constexpr ProtocolRange kWorkerProtocol = {.oldest = 1, .newest = 6};

// From this version on agents write checkpoints and resume from them.
inline constexpr int kCheckpointProtocol = 2;

// From this version on their ranks leave state in memory, and go on from it; and know other
// architectures than the TransNormer, other methods than LASP and DDP, and other activation plans
// than KEEP. Ranks from before take no notice of these fields.
inline constexpr int kRebuildProtocol = 3;
inline constexpr int kStrategiesProtocol = 3;

// From this version on their ranks know MEGATRON_SP, layers of softmax attention, packed documents
// and moments in bf16, and compute Linear Transformers, RING_ATTENTION and softmax attention on
// GPUs.
inline constexpr int kLayersProtocol = 4;

// From this version on their ranks compute layers of softmax attention with MEGATRON_SP, and keep
// documents apart there on GPUs.
inline constexpr int kHybridsProtocol = 5;

// From this version on their ranks on GPUs meet before NCCL connects them, which all or none must
// do.
inline constexpr int kMeetingProtocol = 6;

// Agents from before versions were agreed on name the only one that they speak.
inline ProtocolRange AgentProtocol(const lasp::v1::Hello& hello) {
  return {.oldest = hello.protocol_version(),
          .newest = std::max(hello.protocol_version(), hello.newest_protocol_version())};
}

// The newest version that both speak; none where they have none in common.
inline std::optional<int> CommonVersion(const ProtocolRange& a, const ProtocolRange& b) {
  const int newest = std::min(a.newest, b.newest);
  return newest >= std::max(a.oldest, b.oldest) ? std::optional<int>(newest) : std::nullopt;
}

}  // namespace lasp
