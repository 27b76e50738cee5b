// What the exit code of a rank process means to the agent and the coordinator.
#pragma once

namespace lasp {

inline constexpr int kRankDone = 0;
// Try again: a peer died, a connection broke.
inline constexpr int kRankRetry = 10;
// Wrong configuration or data: another attempt would end the same way.
inline constexpr int kRankWrongConfiguration = 11;
// This host is suspect: try elsewhere.
inline constexpr int kRankSuspectHost = 12;
// Stopped as asked, at a step boundary.
inline constexpr int kRankDrained = 13;
// Do not run this job again.
inline constexpr int kRankDoNotRequeue = 93;

}  // namespace lasp
