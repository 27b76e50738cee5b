#include "server/job_filter.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"
#include "server/job_fields.h"

namespace lasp::server {
namespace {

constexpr size_t kMaxFilterCharacters = 2'000;
constexpr size_t kMaxTerms = 32;

absl::Status ErrorAt(size_t position, absl::string_view what) {
  return ErrorWithReason(absl::StatusCode::kInvalidArgument,
                         absl::StrCat("filter, column ", position + 1, ": ", what),
                         "INVALID_FILTER", {{"column", absl::StrCat(position + 1)}});
}

bool IsWordCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
         absl::StrContains("_-./:+", absl::string_view(&c, 1));
}

}  // namespace

// Reads left to right; every error names where it stands.
class JobFilter::Parser {
 public:
  explicit Parser(absl::string_view text) : text_(text) {}

  absl::StatusOr<JobFilter> Parse() {
    JobFilter filter;
    SkipSpace();
    if (AtEnd()) {
      return filter;
    }
    while (true) {
      if (filter.terms_.size() == kMaxTerms) {
        return ErrorAt(position_, absl::StrCat("more than ", kMaxTerms, " terms"));
      }
      LASP_ASSIGN_OR_RETURN(Term term, ParseTerm());
      filter.terms_.push_back(std::move(term));
      SkipSpace();
      if (AtEnd()) {
        return filter;
      }
      const size_t start = position_;
      if (ReadWord() != "AND") {
        return ErrorAt(start, "expected AND or the end of the filter");
      }
      SkipSpace();
    }
  }

 private:
  bool AtEnd() const { return position_ == text_.size(); }

  void SkipSpace() {
    while (!AtEnd() && absl::ascii_isspace(static_cast<unsigned char>(text_[position_]))) {
      ++position_;
    }
  }

  std::string ReadWord() {
    const size_t start = position_;
    while (!AtEnd() && IsWordCharacter(text_[position_])) {
      ++position_;
    }
    return std::string(text_.substr(start, position_ - start));
  }

  absl::StatusOr<Term> ParseTerm() {
    Term term;
    LASP_RETURN_IF_ERROR(ParseField(&term));
    SkipSpace();
    LASP_RETURN_IF_ERROR(ParseOperator(&term));
    SkipSpace();
    const size_t start = position_;
    LASP_ASSIGN_OR_RETURN(term.text, ParseValue());
    LASP_RETURN_IF_ERROR(Interpret(start, &term));
    return term;
  }

  absl::Status ParseField(Term* term) {
    const size_t start = position_;
    const std::string word = ReadWord();
    if (word == "state") {
      term->field = Field::kState;
    } else if (word == "display_name") {
      term->field = Field::kDisplayName;
    } else if (word == "name") {
      term->field = Field::kName;
    } else if (word == "create_time") {
      term->field = Field::kCreateTime;
    } else if (absl::StartsWith(word, "labels.")) {
      term->field = Field::kLabel;
      term->label_key = word.substr(7);
      if (!IsValidLabelKey(term->label_key)) {
        return ErrorAt(start + 7, "expected a label's key, [a-z]([a-z0-9_-]{0,62})");
      }
    } else {
      return ErrorAt(start,
                     "expected a field: state, display_name, name, create_time or labels.KEY");
    }
    return absl::OkStatus();
  }

  absl::Status ParseOperator(Term* term) {
    const size_t start = position_;
    const absl::string_view rest = text_.substr(position_);
    if (absl::StartsWith(rest, "!=")) {
      term->op = Operator::kNotEqual;
      position_ += 2;
    } else if (absl::StartsWith(rest, "<=")) {
      term->op = Operator::kLessOrEqual;
      position_ += 2;
    } else if (absl::StartsWith(rest, ">=")) {
      term->op = Operator::kGreaterOrEqual;
      position_ += 2;
    } else if (absl::StartsWith(rest, "=")) {
      term->op = Operator::kEqual;
      position_ += 1;
    } else if (absl::StartsWith(rest, "<")) {
      term->op = Operator::kLess;
      position_ += 1;
    } else if (absl::StartsWith(rest, ">")) {
      term->op = Operator::kGreater;
      position_ += 1;
    } else {
      return ErrorAt(start, "expected an operator: =, != or, for times, <, <=, >, >=");
    }
    const bool orders = term->op != Operator::kEqual && term->op != Operator::kNotEqual;
    if (orders && term->field != Field::kCreateTime) {
      return ErrorAt(start, "only create_time has an order: use = or !=");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> ParseValue() {
    const size_t start = position_;
    if (AtEnd() || text_[position_] != '"') {
      std::string word = ReadWord();
      if (word.empty()) {
        return ErrorAt(start, "expected a value: a word, or text in double quotes");
      }
      return word;
    }
    std::string value;
    for (++position_; !AtEnd(); ++position_) {
      if (text_[position_] == '"') {
        ++position_;
        return value;
      }
      if (text_[position_] == '\\') {
        ++position_;
      }
      if (AtEnd()) {
        break;
      }
      value += text_[position_];
    }
    return ErrorAt(start, "this quote is never closed");
  }

  static absl::Status Interpret(size_t start, Term* term) {
    if (term->field == Field::kState) {
      const std::string full =
          absl::StartsWith(term->text, "STATE_") ? term->text : absl::StrCat("STATE_", term->text);
      if (!v1::TrainingJob::State_Parse(full, &term->state) ||
          term->state == v1::TrainingJob::STATE_UNSPECIFIED) {
        return ErrorAt(start,
                       "no such state: use QUEUED, STARTING, RUNNING, RECOVERING, SUSPENDING, "
                       "SUSPENDED, CANCELLING, SUCCEEDED, FAILED or CANCELLED");
      }
    } else if (term->field == Field::kCreateTime) {
      std::string problem;
      if (!absl::ParseTime(absl::RFC3339_full, term->text, &term->time, &problem)) {
        return ErrorAt(start, "expected a time such as \"2026-11-21T20:00:00Z\"");
      }
    } else if (term->field == Field::kName && !ParseJobName(term->text).ok()) {
      return ErrorAt(start, "expected a full name, projects/{project}/trainingJobs/{job}");
    }
    return absl::OkStatus();
  }

  const absl::string_view text_;
  size_t position_ = 0;
};

absl::StatusOr<JobFilter> JobFilter::Parse(absl::string_view text) {
  if (text.size() > kMaxFilterCharacters) {
    return ErrorAt(kMaxFilterCharacters,
                   absl::StrCat("a filter has at most ", kMaxFilterCharacters, " characters"));
  }
  return Parser(text).Parse();
}

bool JobFilter::Matches(const v1::TrainingJob& job) const {
  for (const Term& term : terms_) {
    if (!MatchesTerm(term, job)) {
      return false;
    }
  }
  return true;
}

bool JobFilter::may_change() const {
  return std::any_of(terms_.begin(), terms_.end(), [](const Term& term) {
    return term.field != Field::kName && term.field != Field::kCreateTime;
  });
}

bool JobFilter::MatchesTerm(const Term& term, const v1::TrainingJob& job) {
  if (term.field == Field::kCreateTime) {
    const absl::Time time = FromProtoTime(job.create_time());
    switch (term.op) {
      case Operator::kEqual:
        return time == term.time;
      case Operator::kNotEqual:
        return time != term.time;
      case Operator::kLess:
        return time < term.time;
      case Operator::kLessOrEqual:
        return time <= term.time;
      case Operator::kGreater:
        return time > term.time;
      case Operator::kGreaterOrEqual:
        return time >= term.time;
    }
  }
  bool equal = false;
  if (term.field == Field::kState) {
    equal = job.state() == term.state;
  } else if (term.field == Field::kDisplayName) {
    equal = job.display_name() == term.text;
  } else if (term.field == Field::kName) {
    equal = job.name() == term.text;
  } else {
    const auto label = job.labels().find(term.label_key);
    equal = label != job.labels().end() && label->second == term.text;
  }
  return equal == (term.op == Operator::kEqual);
}

}  // namespace lasp::server
