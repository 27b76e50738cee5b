// "Did you mean …?"
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace lasp::client {

// Edits (insert, delete, replace, swap neighbours) from one text to the other.
int EditDistance(absl::string_view a, absl::string_view b);

// The candidate a person most likely meant, letter case aside; empty where none is close.
std::string NearestName(absl::string_view name, const std::vector<std::string>& candidates);

// "; did you mean 'x'?" or empty.
std::string Suggestion(absl::string_view name, const std::vector<std::string>& candidates);

}  // namespace lasp::client
