#include "client/number_text.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lasp::client {

std::string FormatRate(double value) {
  static constexpr const char* kUnits[] = {"", "k", "M", "G", "T"};
  size_t unit = 0;
  // 999.5 would be printed as 1000.
  while (std::fabs(value) >= 999.5 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  const double size = std::fabs(value);
  const int decimals = unit == 0 || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return absl::StrFormat("%.*f%s", decimals, value, kUnits[unit]);
}

std::string FormatLoss(double loss) { return absl::StrFormat("%.3f", loss); }

std::string FormatPercent(int64_t part, int64_t whole) {
  return absl::StrCat(whole == 0 ? 0 : part * 100 / whole, "%");
}

}  // namespace lasp::client
