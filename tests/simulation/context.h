// What all parts of one world share.
#pragma once

#include <cstdint>
#include <deque>
#include <iostream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tests/simulation/invariant.h"
#include "tests/simulation/random.h"
#include "tests/simulation/timeline.h"

namespace lasp::simulation {

class Context {
 public:
  // `printing`: all that is said goes to stdout.
  Context(uint64_t seed, Plant plant, bool recording, bool printing)
      : seed_(seed), plant_(plant), recording_(recording || printing), printing_(printing) {}

  Timeline& timeline() { return timeline_; }

  absl::Duration now() const { return timeline_.now(); }

  Plant plant() const { return plant_; }

  // The next stream of the seed.
  Random MakeRandom() { return {seed_, next_stream_++}; }

  // --- what happened, for people. Say is worth its cost only where recording. ---

  bool recording() const { return recording_; }

  template <typename... Pieces>
  void Say(const Pieces&... pieces) {
    if (recording_) {
      Remember(absl::StrCat(pieces...));
    }
  }

  const std::deque<std::string>& latest() const { return latest_; }

  // Of all that was said.
  uint64_t digest() const { return digest_; }

  // --- the verdict: the first violation counts ---

  void Violate(Invariant invariant, std::string what) {
    if (violated_ == Invariant::kNone) {
      violated_ = invariant;
      violation_ = std::move(what);
      Say("VIOLATED ", static_cast<int>(invariant), ": ", violation_);
    }
  }

  Invariant violated() const { return violated_; }

  const std::string& violation() const { return violation_; }

 private:
  static constexpr size_t kKept = 50;

  void Remember(absl::string_view what) {
    std::string line =
        absl::StrCat(absl::FormatDuration(absl::Trunc(now(), absl::Microseconds(1))), "  ", what);
    for (const char c : line) {
      digest_ = (digest_ ^ static_cast<unsigned char>(c)) * 1099511628211U;
    }
    if (printing_) {
      std::cout << line << "\n";
    }
    latest_.push_back(std::move(line));
    if (latest_.size() > kKept) {
      latest_.pop_front();
    }
  }

  const uint64_t seed_;
  const Plant plant_;
  const bool recording_;
  const bool printing_;
  Timeline timeline_;
  uint64_t next_stream_ = 1;
  std::deque<std::string> latest_;
  uint64_t digest_ = 14695981039346656037U;
  Invariant violated_ = Invariant::kNone;
  std::string violation_;
};

}  // namespace lasp::simulation
