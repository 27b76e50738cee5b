#include "worker/checkpoint/initial_weights.h"

#include "worker/checkpoint/shared_reading.h"

namespace lasp::worker {

absl::Status LoadInitialWeights(const InitialWeightsOptions& options) {
  const SharedReading reading{.what = "read the initial weights",
                              .layout = options.layout,
                              .backend = options.backend,
                              .world = options.world,
                              .owned = options.owned,
                              .give_up = options.give_up,
                              .on_block = options.on_block};
  const absl::Status own = ReadShare(
      reading,
      [&options](const Parameter& parameter, int64_t begin, int64_t count, float* to) {
        return options.folder->Read(parameter.name, begin, count, to);
      },
      options.masters);
  return ShareOut(reading, own, {options.masters});
}

}  // namespace lasp::worker
