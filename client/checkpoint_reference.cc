#include "client/checkpoint_reference.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/job_reference.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {

using lasp::v1::Checkpoint;
using CheckpointStub = lasp::v1::CheckpointService::Stub;

absl::StatusOr<std::vector<Checkpoint>> AllCheckpoints(const std::string& job, Session* session) {
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  lasp::v1::ListCheckpointsRequest request;
  request.set_parent(job);
  std::vector<Checkpoint> checkpoints;
  do {
    LASP_ASSIGN_OR_RETURN(const auto page, connection->Call(&connection->checkpoints(),
                                                            &CheckpointStub::ListCheckpoints,
                                                            request, kReadDeadline));
    checkpoints.insert(checkpoints.end(), page.checkpoints().begin(), page.checkpoints().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return checkpoints;
}

absl::StatusOr<Checkpoint> TheCheckpoint(const std::vector<std::string>& words, Session* session) {
  if (words.empty() || words.size() > 2) {
    return absl::InvalidArgumentError("expected NAME and perhaps STEP");
  }
  int64_t step = 0;
  if (words.size() == 2 && words[1] != "latest" &&
      (!absl::SimpleAtoi(words[1], &step) || step < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a step or latest, got '", words[1], "'"));
  }
  LASP_ASSIGN_OR_RETURN(const lasp::v1::TrainingJob job, ResolveJob(words[0], session));
  LASP_ASSIGN_OR_RETURN(const std::vector<Checkpoint> all, AllCheckpoints(job.name(), session));
  const auto found = std::find_if(all.begin(), all.end(), [step](const Checkpoint& checkpoint) {
    return step == 0 ? checkpoint.state() == Checkpoint::STATE_COMMITTED
                     : checkpoint.step() == step;
  });
  if (found == all.end()) {
    return absl::NotFoundError(
        step == 0 ? absl::StrCat("job/", ShortName(job.name()), " has no committed checkpoint")
                  : absl::StrCat("job/", ShortName(job.name()), " has no checkpoint of step ", step,
                                 "; 'lasp checkpoints list ", ShortName(job.name()),
                                 "' shows what there is"));
  }
  return *found;
}

}  // namespace lasp::client
