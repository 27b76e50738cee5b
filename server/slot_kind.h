// CPU slots and GPU slots, which are counted apart: the ranks of a job are all on one kind.
#pragma once

#include <array>

#include "lasp/v1/worker.pb.h"

namespace lasp::server {

using SlotKind = lasp::v1::Slot::Kind;

inline constexpr std::array<SlotKind, 2> kSlotKinds = {lasp::v1::Slot::KIND_CPU,
                                                       lasp::v1::Slot::KIND_GPU};

// For people.
inline constexpr const char* SlotKindName(SlotKind kind) {
  return kind == lasp::v1::Slot::KIND_GPU ? "GPU" : "CPU";
}

// One value a kind. What an agent calls by no kind counts as CPU.
template <typename T>
struct PerKind {
  T cpu{};
  T gpu{};

  T& operator[](SlotKind kind) { return kind == lasp::v1::Slot::KIND_GPU ? gpu : cpu; }

  const T& operator[](SlotKind kind) const { return kind == lasp::v1::Slot::KIND_GPU ? gpu : cpu; }

  bool operator==(const PerKind&) const = default;
};

}  // namespace lasp::server
