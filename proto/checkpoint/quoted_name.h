// What strangers call things, for an error message.
#pragma once

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace lasp {

inline std::string QuotedName(absl::string_view name) {
  constexpr size_t kLongest = 200;
  return absl::StrCat("'", absl::CHexEscape(name.substr(0, kLongest)), "'");
}

}  // namespace lasp
