// From what a rank owns to what its optimizer updates.
#pragma once

#include <vector>

#include "worker/optim/adamw.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {

// What is owned, cut where what is `alike` ends.
std::vector<UpdatedRange> UpdatedRanges(const std::vector<ParameterRange>& alike,
                                        const std::vector<OwnedRange>& owned);

}  // namespace lasp::worker
