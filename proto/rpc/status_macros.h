// Early return on errors, for functions that return absl::Status or absl::StatusOr.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define LASP_CONCAT_INNER(a, b) a##b
#define LASP_CONCAT(a, b) LASP_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expression` (an absl::Status) is not OK.
#define LASP_RETURN_IF_ERROR(expression)     \
  do {                                       \
    absl::Status lasp_status = (expression); \
    if (!lasp_status.ok()) {                 \
      return lasp_status;                    \
    }                                        \
  } while (false)

// LASP_ASSIGN_OR_RETURN(auto x, F()): x is F's value, or the enclosing function returns F's error.
#define LASP_ASSIGN_OR_RETURN(left, expression) \
  LASP_ASSIGN_OR_RETURN_INNER(LASP_CONCAT(lasp_status_or_, __COUNTER__), left, expression)

#define LASP_ASSIGN_OR_RETURN_INNER(name, left, expression) \
  auto name = (expression);                                 \
  if (!name.ok()) {                                         \
    return std::move(name).status();                        \
  }                                                         \
  left = std::move(name).value()
