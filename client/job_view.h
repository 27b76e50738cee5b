// A job as a person sees it: its state, a row of a table, a line of progress.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/output_table.h"
#include "client/terminal.h"
#include "lasp/v1/training_job.pb.h"

namespace lasp::client {

// RUNNING; the number of a state this build does not know.
std::string StateName(lasp::v1::TrainingJob::State state);
Style StateStyle(lasp::v1::TrainingJob::State state);
// SUCCEEDED, FAILED or CANCELLED: nothing follows.
bool IsFinal(lasp::v1::TrainingJob::State state);

struct JobColumns {
  // Ranks, restarts, time left, the display name and the reason.
  bool wide = false;
  bool project = false;
};

// One row a job.
Table JobTable(const std::vector<lasp::v1::TrainingJob>& jobs, const JobColumns& columns,
               absl::Time now);

// `step 1200/5000 24% | loss 2.713 | 1.42M tok/s | eta 2h13m`, or the state and why it waits. Parts
// that do not fit into `width` columns are left out from the end; 0 leaves none out. With room, and
// on a terminal, a bar stands in front.
std::string ProgressLine(const lasp::v1::TrainingJob& job, absl::Time now,
                         const Terminal& terminal);

}  // namespace lasp::client
