// Worlds by the thousand: LASP_SIMULATION_SEED=n runs one and tells what happened in it,
// LASP_SIMULATION_SEEDS=first:count runs others than the suite does.
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "tests/simulation/world.h"

namespace lasp::simulation {
namespace {

// One seed of so many keeps its store on disk, which is slower.
constexpr uint64_t kOnDisk = 100;

bool OneSeedOnly() { return std::getenv("LASP_SIMULATION_SEED") != nullptr; }

WorldOptions OptionsFor(uint64_t seed) {
  return {.on_disk = seed % kOnDisk == 0, .printing = OneSeedOnly()};
}

// What becomes of the bytes of a commit is not looked at here, and without a disk they cost
// nothing.
class InMemoryFiles : public ::testing::Environment {
 public:
  void SetUp() override {
    if (std::filesystem::is_directory("/dev/shm")) {
      setenv("TMPDIR", "/dev/shm", /*overwrite=*/1);
    }
  }
};

const auto* const kInMemoryFiles = ::testing::AddGlobalTestEnvironment(new InMemoryFiles);

// What a seed has shown: the same world again, this time recorded.
std::string Explain(uint64_t seed, WorldOptions options) {
  options.recording = true;
  options.printing = false;
  const WorldResult again = RunWorld(seed, options);
  return absl::StrCat("seed ", seed, " violates invariant ", static_cast<int>(again.violated), ": ",
                      again.violation, "\nthe last events:\n  ",
                      absl::StrJoin(again.events, "\n  "),
                      "\nto see it again: LASP_SIMULATION_SEED=", seed,
                      " simulation_test --gtest_filter=Simulation.InvariantsHold\n");
}

// The seeds that the environment or the suite asks for: first and count.
std::pair<uint64_t, uint64_t> Seeds(uint64_t suite_count) {
  uint64_t first = 1;
  uint64_t count = suite_count;
  if (const char* const one = std::getenv("LASP_SIMULATION_SEED"); one != nullptr) {
    EXPECT_TRUE(absl::SimpleAtoi(one, &first)) << one;
    count = 1;
  } else if (const char* const range = std::getenv("LASP_SIMULATION_SEEDS"); range != nullptr) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(range, ':');
    EXPECT_TRUE(absl::SimpleAtoi(parts.first, &first) && absl::SimpleAtoi(parts.second, &count))
        << range;
  }
  return {first, count};
}

TEST(Simulation, InvariantsHold) {
  const auto [first, count] = Seeds(2'000);
  const std::clock_t begin = std::clock();
  int violations = 0;
  WorldResult sum;
  for (uint64_t seed = first; seed < first + count && violations < 3; ++seed) {
    const WorldResult result = RunWorld(seed, OptionsFor(seed));
    if (result.violated != Invariant::kNone) {
      ++violations;
      ADD_FAILURE() << Explain(seed, OptionsFor(seed));
    }
    sum.virtual_seconds += result.virtual_seconds;
    sum.jobs += result.jobs;
    sum.jobs_succeeded += result.jobs_succeeded;
    sum.generations += result.generations;
    sum.restored_generations += result.restored_generations;
    sum.coordinator_starts += result.coordinator_starts;
  }
  const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  std::cout << count << " seeds in " << seconds << " s of a core, "
            << static_cast<double>(count) / seconds << " a second: " << sum.virtual_seconds / 3600
            << " hours of virtual time, " << sum.jobs << " jobs, " << sum.jobs_succeeded
            << " of them succeeded, " << sum.generations << " generations, "
            << sum.restored_generations << " of them from a checkpoint, " << sum.coordinator_starts
            << " starts of the coordinator\n";
  if (count >= 1'000) {
    // Something happens in these worlds.
    EXPECT_GT(sum.jobs_succeeded, sum.jobs / 10);
    EXPECT_GT(sum.generations, sum.jobs / 2);
    EXPECT_GT(sum.restored_generations, sum.generations / 20);
    EXPECT_GT(sum.coordinator_starts, static_cast<int64_t>(2 * count));
  }
}

// A seed is one world: whatever was run before it, and wherever its memory lies.
TEST(Simulation, ASeedIsOneWorld) {
  constexpr uint64_t kSeeds = 20;
  std::vector<uint64_t> digests;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    digests.push_back(RunWorld(seed, {.recording = true}).digest);
  }
  const std::vector<std::string> ballast(1'000, std::string(100, ' '));
  for (uint64_t seed = kSeeds; seed >= 1; --seed) {
    EXPECT_EQ(RunWorld(seed, {.recording = true}).digest, digests[seed - 1]) << "seed " << seed;
  }
  EXPECT_NE(digests[0], digests[1]);
}

// The store in memory does what SQLite's does.
TEST(Simulation, TheStoresAgree) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    EXPECT_EQ(RunWorld(seed, {.on_disk = true, .recording = true}).digest,
              RunWorld(seed, {.on_disk = false, .recording = true}).digest)
        << "seed " << seed;
  }
}

struct PlantedBug {
  const char* name;
  Plant plant;
  Invariant breaks;
};

class PlantedBugTest : public ::testing::TestWithParam<PlantedBug> {};

// The invariant that a bug breaks is the one that is reported, within a few hundred seeds.
TEST_P(PlantedBugTest, IsFound) {
  constexpr uint64_t kSeeds = 1000;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const WorldResult result = RunWorld(seed, {.plant = GetParam().plant});
    if (result.violated == GetParam().breaks) {
      std::cout << "found by seed " << seed << ": " << result.violation << "\n";
      return;
    }
  }
  FAIL() << "not found by " << kSeeds << " seeds";
}

INSTANTIATE_TEST_SUITE_P(
    Simulation, PlantedBugTest,
    ::testing::Values(PlantedBug{"StaleReports", Plant::kStaleReports, Invariant::kOneGeneration},
                      PlantedBug{"EarlyExit", Plant::kEarlyExit, Invariant::kOneGeneration},
                      PlantedBug{"EarlyExitAndItsSlot", Plant::kEarlyExit, Invariant::kSlotOnce},
                      PlantedBug{"PlaceTwice", Plant::kPlaceTwice, Invariant::kSlotOnce},
                      PlantedBug{"ForgetsEnd", Plant::kForgetsEnd, Invariant::kTerminal},
                      PlantedBug{"LosesCommit", Plant::kLosesCommit, Invariant::kNothingLost},
                      PlantedBug{"DeafAgent", Plant::kDeafAgent, Invariant::kLiveness},
                      PlantedBug{"AnswersEarly", Plant::kAnswersEarly,
                                 Invariant::kGenerationStored},
                      PlantedBug{"ShortManifest", Plant::kShortManifest, Invariant::kManifestWhole},
                      PlantedBug{"CommitsEarly", Plant::kCommitsEarly, Invariant::kManifestWhole}),
    [](const auto& bug) { return std::string(bug.param.name); });

}  // namespace
}  // namespace lasp::simulation
