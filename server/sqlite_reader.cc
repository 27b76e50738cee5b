#include "server/sqlite_reader.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "server/store_error.h"

namespace lasp::server {
namespace {

template <typename Message>
absl::Status ParseRow(const std::string& path, absl::string_view bytes, absl::string_view what,
                      Message* message) {
  if (!message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return StoreDamaged(path, absl::StrCat("it holds ", what, " that cannot be read"));
  }
  return absl::OkStatus();
}

int64_t LastStep(int64_t to_step) {
  return to_step == 0 ? std::numeric_limits<int64_t>::max() : to_step;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteReader>> SqliteReader::Open(const std::string& path,
                                                                 const std::string& vfs) {
  auto reader = std::unique_ptr<SqliteReader>(new SqliteReader(path));
  MutexLock lock(&reader->mutex_);
  LASP_ASSIGN_OR_RETURN(reader->database_,
                        SqliteDatabase::Open(path, vfs, SqliteDatabase::Mode::kReadOnly));

  const struct {
    SqliteStatement* statement;
    const char* sql;
  } statements[] = {
      {&reader->transitions_,
       "SELECT transition FROM transitions WHERE job_id = ? ORDER BY revision DESC LIMIT ?"},
      {&reader->transitions_before_,
       "SELECT job_id, revision, transition FROM transitions WHERE job_id = ? AND revision < ? "
       "ORDER BY revision DESC LIMIT ?"},
      {&reader->latest_transitions_,
       "SELECT job_id, revision, transition FROM transitions ORDER BY revision DESC LIMIT ?"},
      {&reader->count_steps_,
       "SELECT COUNT(*) FROM steps WHERE job_id = ? AND step BETWEEN ? AND ?"},
      {&reader->read_steps_,
       "SELECT metrics FROM steps WHERE job_id = ? AND step BETWEEN ? AND ? ORDER BY step"},
      {&reader->generation_steps_,
       "SELECT metrics FROM steps WHERE job_id = ? AND generation = ? AND step > ? "
       "ORDER BY step LIMIT ?"},
      {&reader->next_generation_,
       "SELECT MIN(generation) FROM steps WHERE job_id = ? AND generation > ?"},
  };

  for (const auto& [statement, sql] : statements) {
    LASP_ASSIGN_OR_RETURN(*statement, SqliteStatement::Prepare(reader->database_, sql));
  }
  return reader;
}

absl::StatusOr<std::vector<lasp::v1::Transition>> SqliteReader::Transitions(int64_t job_id,
                                                                            int limit) {
  MutexLock lock(&mutex_);
  std::vector<lasp::v1::Transition> transitions;
  transitions_.Bind(job_id).Bind(limit);
  while (true) {
    LASP_ASSIGN_OR_RETURN(const bool row, transitions_.Step());
    if (!row) {
      break;
    }
    LASP_RETURN_IF_ERROR(
        ParseRow(path_, transitions_.Blob(), "a transition", &transitions.emplace_back()));
  }
  std::reverse(transitions.begin(), transitions.end());
  return transitions;
}

absl::StatusOr<std::vector<StoredTransition>> SqliteReader::StoredTransitions(
    SqliteStatement* statement) {
  std::vector<StoredTransition> rows;
  while (true) {
    LASP_ASSIGN_OR_RETURN(const bool row, statement->Step());
    if (!row) {
      return rows;
    }
    StoredTransition& stored = rows.emplace_back();
    stored.job_id = statement->Integer();
    stored.revision = statement->Integer();
    LASP_RETURN_IF_ERROR(ParseRow(path_, statement->Blob(), "a transition", &stored.transition));
  }
}

absl::StatusOr<std::vector<StoredTransition>> SqliteReader::TransitionsBefore(int64_t job_id,
                                                                              int64_t before,
                                                                              int limit) {
  MutexLock lock(&mutex_);
  transitions_before_.Bind(job_id).Bind(before).Bind(limit);
  return StoredTransitions(&transitions_before_);
}

absl::StatusOr<std::vector<StoredTransition>> SqliteReader::LatestTransitions(int limit) {
  MutexLock lock(&mutex_);
  latest_transitions_.Bind(limit);
  return StoredTransitions(&latest_transitions_);
}

absl::StatusOr<int64_t> SqliteReader::CountSteps(int64_t job_id, int64_t from_step,
                                                 int64_t to_step) {
  MutexLock lock(&mutex_);
  count_steps_.Bind(job_id).Bind(from_step).Bind(LastStep(to_step));
  LASP_ASSIGN_OR_RETURN(const bool row, count_steps_.Step());
  const int64_t count = row ? count_steps_.Integer() : 0;
  count_steps_.Reset();
  return count;
}

absl::StatusOr<std::vector<lasp::v1::StepMetrics>> SqliteReader::ReadSteps(int64_t job_id,
                                                                           int64_t from_step,
                                                                           int64_t to_step,
                                                                           int64_t stride) {
  MutexLock lock(&mutex_);
  std::vector<lasp::v1::StepMetrics> steps;
  std::string last;
  int64_t index = 0;
  read_steps_.Bind(job_id).Bind(from_step).Bind(LastStep(to_step));
  while (true) {
    LASP_ASSIGN_OR_RETURN(const bool row, read_steps_.Step());
    if (!row) {
      break;
    }
    const absl::string_view bytes = read_steps_.Blob();
    last.clear();
    if (index++ % stride == 0) {
      LASP_RETURN_IF_ERROR(ParseRow(path_, bytes, "step metrics", &steps.emplace_back()));
    } else {
      last.assign(bytes.data(), bytes.size());
    }
  }
  if (!last.empty()) {
    LASP_RETURN_IF_ERROR(ParseRow(path_, last, "step metrics", &steps.emplace_back()));
  }
  return steps;
}

absl::StatusOr<std::vector<lasp::v1::StepMetrics>> SqliteReader::ReadGenerationSteps(
    int64_t job_id, int64_t generation, int64_t after_step, int limit) {
  MutexLock lock(&mutex_);
  std::vector<lasp::v1::StepMetrics> steps;
  generation_steps_.Bind(job_id).Bind(generation).Bind(after_step).Bind(limit);
  while (true) {
    LASP_ASSIGN_OR_RETURN(const bool row, generation_steps_.Step());
    if (!row) {
      return steps;
    }
    LASP_RETURN_IF_ERROR(
        ParseRow(path_, generation_steps_.Blob(), "step metrics", &steps.emplace_back()));
  }
}

absl::StatusOr<int64_t> SqliteReader::NextGeneration(int64_t job_id, int64_t generation) {
  MutexLock lock(&mutex_);
  next_generation_.Bind(job_id).Bind(generation);
  LASP_ASSIGN_OR_RETURN(const bool row, next_generation_.Step());
  const int64_t next = row ? next_generation_.Integer() : 0;
  next_generation_.Reset();
  return next;
}

}  // namespace lasp::server
