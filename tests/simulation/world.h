// One coordinator, a few hosts, a few jobs, some minutes of virtual time: all of it follows from a
// seed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/simulation/invariant.h"

namespace lasp::simulation {

struct WorldOptions {
  Plant plant = Plant::kNone;
  // Keeps the store in SQLite's files instead of in memory.
  bool on_disk = false;
  // Keeps what happened last, at some cost.
  bool recording = false;
  // Prints all that happens.
  bool printing = false;
};

struct WorldResult {
  // kNone where all held.
  Invariant violated = Invariant::kNone;
  std::string violation;
  // With `recording`: the last 50 events, and a digest of all.
  std::vector<std::string> events;
  uint64_t digest = 0;
  // What the world came to, so that a simulation in which nothing happens is noticed.
  double virtual_seconds = 0;
  int jobs = 0;
  int jobs_succeeded = 0;
  int64_t generations = 0;
  // Of these, from a checkpoint.
  int64_t restored_generations = 0;
  int64_t coordinator_starts = 0;
};

WorldResult RunWorld(uint64_t seed, const WorldOptions& options = {});

}  // namespace lasp::simulation
