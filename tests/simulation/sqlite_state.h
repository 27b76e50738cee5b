// The real store's writer and reader, without its thread.
#pragma once

#include <memory>
#include <string>

#include "server/sqlite_reader.h"
#include "server/sqlite_writer.h"
#include "tests/simulation/durable_state.h"
#include "tests/support/temp_directory.h"

namespace lasp::simulation {

class SqliteState final : public DurableState {
 public:
  absl::Status Apply(const std::vector<server::Mutation>& mutations) override;
  // Opens the file anew, as a start does.
  absl::StatusOr<server::StoreContents> Load() override;
  absl::StatusOr<std::vector<lasp::v1::Transition>> Transitions(int64_t job_id, int limit) override;
  absl::StatusOr<std::vector<server::StoredTransition>> LatestTransitions(int limit) override;

 private:
  testing::TempDirectory directory_;
  std::unique_ptr<server::SqliteWriter> writer_;
  std::unique_ptr<server::SqliteReader> reader_;
};

}  // namespace lasp::simulation
