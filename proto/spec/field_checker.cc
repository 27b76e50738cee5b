#include "proto/spec/field_checker.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace lasp {

bool FieldChecker::Refuse(absl::string_view field, absl::string_view description) {
  violations_.push_back({std::string(field), std::string(description)});
  return false;
}

bool FieldChecker::Integer(absl::string_view field, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) {
    return true;
  }
  return Refuse(field, absl::StrCat("is ", value, ": choose a number from ", min, " to ", max));
}

bool FieldChecker::Real(absl::string_view field, double value, double min, Bound min_bound,
                        double max, Bound max_bound) {
  const bool above = min_bound == Bound::kOpen ? value > min : value >= min;
  const bool below = max_bound == Bound::kOpen ? value < max : value <= max;
  if (std::isfinite(value) && above && below) {
    return true;
  }
  return Refuse(field, absl::StrCat("is ", value, ": choose a number ",
                                    min_bound == Bound::kOpen ? "greater than " : "from ", min,
                                    max_bound == Bound::kOpen ? " and less than " : " to ", max));
}

}  // namespace lasp
