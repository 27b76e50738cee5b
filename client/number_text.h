// Numbers for people.
#pragma once

#include <cstdint>
#include <string>

namespace lasp::client {

// Three digits and a unit: 42, 1.42k, 18.3M, 2.1G.
std::string FormatRate(double value);
// A loss: 2.713.
std::string FormatLoss(double loss);
// "24%" of a whole that is not zero.
std::string FormatPercent(int64_t part, int64_t whole);

}  // namespace lasp::client
