// Jobs brought into a state, for tests of what may be done in it.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "tests/server/core/engine_harness.h"

namespace lasp::server {

// A job of two ranks in `state`, on `agent` where the state has ranks. Gives its name.
inline std::string BringTo(EngineHarness* harness, FakeAgent* agent, Job::State state) {
  agent->readies_ranks = state != Job::STATE_STARTING;
  const std::string job = harness->Submit("run", 1, 2);
  switch (state) {
    case Job::STATE_QUEUED:
      break;
    case Job::STATE_RECOVERING: {
      const FakeRank rank = *agent->Find(job, 0);
      harness->Exit(agent, rank, 1);
      harness->Exit(agent, *agent->Find(job, 0), 1);
      break;
    }
    case Job::STATE_SUSPENDED:
      LASP_EXPECT_OK(harness->Suspend(job));
      break;
    case Job::STATE_SUSPENDING:
      agent->obeys_stops = false;
      LASP_EXPECT_OK(harness->Suspend(job));
      break;
    case Job::STATE_CANCELLING:
      agent->obeys_stops = false;
      LASP_EXPECT_OK(harness->Cancel(job));
      break;
    case Job::STATE_SUCCEEDED:
      harness->ExitAll(job, kRankDone);
      break;
    case Job::STATE_FAILED:
      harness->Exit(agent, *agent->Find(job, 0), kRankWrongConfiguration);
      break;
    case Job::STATE_CANCELLED:
      LASP_EXPECT_OK(harness->Cancel(job));
      break;
    default:
      break;
  }
  EXPECT_EQ(harness->State(job), state);
  return job;
}

}  // namespace lasp::server
