// The filter of lists and watches: `field op value` joined by AND.
//
// Fields: state, display_name, name, create_time, labels.KEY. Operators: = and !=, and for times
// also < <= > >=. A value is a word, or a string in double quotes where \" and \\ stand for " and
// \. A label that is absent equals nothing, so `labels.team != "nlp"` holds for jobs without the
// label.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lasp/v1/training_job.pb.h"

namespace lasp::server {

// Immutable once parsed; safe to share between threads.
class JobFilter {
 public:
  // Matches everything.
  JobFilter() = default;

  // INVALID_ARGUMENT (reason INVALID_FILTER) that names the column, counted from 1, and what was
  // expected there. At most 2,000 characters and 32 terms.
  static absl::StatusOr<JobFilter> Parse(absl::string_view text);

  bool Matches(const v1::TrainingJob& job) const;

  bool empty() const { return terms_.empty(); }

  // Whether the answer about one job can be another one after the job has changed.
  bool may_change() const;

 private:
  enum class Field { kState, kDisplayName, kName, kCreateTime, kLabel };
  enum class Operator { kEqual, kNotEqual, kLess, kLessOrEqual, kGreater, kGreaterOrEqual };

  struct Term {
    Field field = Field::kState;
    Operator op = Operator::kEqual;
    std::string label_key;
    std::string text;
    v1::TrainingJob::State state = v1::TrainingJob::STATE_UNSPECIFIED;
    absl::Time time;
  };

  class Parser;

  static bool MatchesTerm(const Term& term, const v1::TrainingJob& job);

  std::vector<Term> terms_;
};

}  // namespace lasp::server
