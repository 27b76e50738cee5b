// Collects what is wrong with the fields of a message.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/rpc/error_details.h"

namespace lasp {

// Every check adds at most one violation and returns whether the field is sound.
class FieldChecker {
 public:
  bool Refuse(absl::string_view field, absl::string_view description);

  // A whole number in [min, max].
  bool Integer(absl::string_view field, int64_t value, int64_t min, int64_t max);

  enum class Bound { kClosed, kOpen };

  // A finite number from min to max; an open bound is itself refused.
  bool Real(absl::string_view field, double value, double min, Bound min_bound, double max,
            Bound max_bound = Bound::kClosed);

  std::vector<FieldViolation> Take() { return std::move(violations_); }

 private:
  std::vector<FieldViolation> violations_;
};

}  // namespace lasp
