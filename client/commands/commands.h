// What each command does. Each gives the exit code of the program, or the error to report.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/model_options.h"
#include "client/options.h"
#include "client/session.h"

namespace lasp::client {

// The words after a command: names, as `job NAME`, `job/NAME` or NAME.
using Words = std::vector<std::string>;

absl::StatusOr<int> Submit(const SubmitOptions& options, Session* session);
absl::StatusOr<int> Get(const Words& words, Session* session);
absl::StatusOr<int> List(const ListOptions& options, const Words& words, Session* session);
absl::StatusOr<int> Describe(const Words& words, Session* session);
// One job until it ends, or all jobs of the project until Ctrl-C.
absl::StatusOr<int> Watch(const Words& words, Session* session);
// Of a job, of a worker, or all; with `watch` new ones until the job ends or Ctrl-C.
absl::StatusOr<int> Events(const EventsOptions& options, const Words& words, Session* session);
absl::StatusOr<int> Metrics(const MetricsOptions& options, const Words& words, Session* session);
// Draws a figure over the steps; with `watch` on a terminal anew until the job ends.
absl::StatusOr<int> Plot(const PlotOptions& options, const Words& words, Session* session);
// Jobs that hold slots, drawn anew on a terminal until Ctrl-C, once elsewhere.
absl::StatusOr<int> Top(const TopOptions& options, Session* session);
absl::StatusOr<int> Logs(const LogOptions& options, const Words& words, Session* session);
// Applies `settings`, as --set gives them.
absl::StatusOr<int> Update(const std::vector<std::string>& settings, const Words& words,
                           Session* session);
absl::StatusOr<int> Cancel(const Words& words, Session* session);
// Asks first, unless `yes`.
absl::StatusOr<int> Suspend(const Words& words, bool yes, Session* session);
absl::StatusOr<int> Resume(const Words& words, Session* session);
absl::StatusOr<int> Delete(const Words& words, Session* session);
absl::StatusOr<int> Workers(const Words& words, Session* session);
// Who changed what, oldest first.
absl::StatusOr<int> Audit(const AuditOptions& options, Session* session);
// Lists, describes, verifies, deletes or exports those of a job, or ImportModel.
absl::StatusOr<int> Checkpoints(const ExportOptions& options, const SubmitOptions& submit,
                                const Words& words, Session* session);
// Submits a job that begins with the weights of the folder that `words` name.
absl::StatusOr<int> ImportModel(const SubmitOptions& options, const Words& words, Session* session);
// Continues a text with a model, and shows a model's loss on a corpus; both compute here.
absl::StatusOr<int> Sample(const ModelOptions& model, const SampleOptions& options,
                           const Words& words, Session* session);
absl::StatusOr<int> Evaluate(const ModelOptions& model, const EvaluateOptions& options,
                             const Words& words, Session* session);
// Makes a backup of the coordinator's store, or lists them.
absl::StatusOr<int> MakeBackup(const Words& words, Session* session);
absl::StatusOr<int> Drain(const Words& words, bool undo, Session* session);
// Contexts: what the words say, with the flags that name a coordinator.
absl::StatusOr<int> Config(const Words& words, Session* session);
// Looks at all that may be wrong between here and the ranks; never waits for long.
absl::StatusOr<int> Doctor(Session* session);
absl::StatusOr<int> Version(bool client_only, Session* session);

}  // namespace lasp::client
