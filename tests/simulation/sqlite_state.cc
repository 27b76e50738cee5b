#include "tests/simulation/sqlite_state.h"

#include "proto/rpc/status_macros.h"

namespace lasp::simulation {

absl::Status SqliteState::Apply(const std::vector<server::Mutation>& mutations) {
  LASP_RETURN_IF_ERROR(writer_->Begin());
  for (const server::Mutation& mutation : mutations) {
    LASP_RETURN_IF_ERROR(writer_->Apply(mutation));
  }
  return writer_->Commit();
}

absl::StatusOr<server::StoreContents> SqliteState::Load() {
  constexpr int64_t kMaxSteps = 10'000;
  const std::string path = directory_.Join("store.sqlite");
  reader_ = nullptr;
  writer_ = nullptr;
  LASP_ASSIGN_OR_RETURN(writer_, server::SqliteWriter::Open(path, "", kMaxSteps));
  LASP_ASSIGN_OR_RETURN(reader_, server::SqliteReader::Open(path, ""));
  return writer_->Load();
}

absl::StatusOr<std::vector<lasp::v1::Transition>> SqliteState::Transitions(int64_t job_id,
                                                                           int limit) {
  return reader_->Transitions(job_id, limit);
}

absl::StatusOr<std::vector<server::StoredTransition>> SqliteState::LatestTransitions(int limit) {
  return reader_->LatestTransitions(limit);
}

}  // namespace lasp::simulation
