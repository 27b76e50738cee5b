// What must hold in every world, and the faults that are planted to show that its loss is seen.
#pragma once

namespace lasp::simulation {

enum class Invariant {
  kNone = 0,
  // One live generation a job: reports of older ones change nothing, and no newer one begins while
  // the coordinator could know that ranks of an older one live.
  kOneGeneration = 1,
  // No slot is in two gangs, and no agent is told to run two ranks in one slot.
  kSlotOnce = 2,
  // Jobs change along the table, and what has ended stays as it ended.
  kTerminal = 3,
  // What was acknowledged is there after every crash.
  kNothingLost = 4,
  // Once faults stop, jobs end or wait for a reason that is true, and no rank is left behind.
  kLiveness = 5,
  // Generations grow, and are stored before anything of them leaves the coordinator.
  kGenerationStored = 6,
  // A manifest implies valid shards: what is committed is a whole checkpoint on the disk, of one
  // step and generation, as long as it is committed, and only such ones are gone on from.
  kManifestWhole = 7,
};

// A bug, put around a seam of what is tested.
enum class Plant {
  kNone,
  // A link that gives reports of older generations the present number. Breaks 1.
  kStaleReports,
  // An agent that tells of a rank's end when it is told to stop it, long before the end. Breaks 1
  // and 2.
  kEarlyExit,
  // A store that writes a place of a new generation as one that another job has. Breaks 2.
  kPlaceTwice,
  // A store that now and then forgets how a job ended. Breaks 3.
  kForgetsEnd,
  // A store that now and then loses a transaction. Breaks 4.
  kLosesCommit,
  // An agent that now and then does not pass a Stop on. Breaks 5.
  kDeafAgent,
  // A store that says that it has written before it has. Breaks 6.
  kAnswersEarly,
  // A disk that leaves the last shard out of a manifest. Breaks 7.
  kShortManifest,
  // A store that writes checkpoints as committed while ranks still write them. Breaks 7.
  kCommitsEarly,
};

}  // namespace lasp::simulation
