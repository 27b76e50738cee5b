// Where lasp-model's replies go (proto/lasp/internal/v1/model_program.proto).
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "lasp/internal/v1/model_program.pb.h"

namespace lasp::worker {

// Used by one thread.
class ReplyStream {
 public:
  // `descriptor` is the caller's; `device` as ModelDeviceName says.
  ReplyStream(int descriptor, std::string device)
      : descriptor_(descriptor), device_(std::move(device)) {}

  // The first reply: the model is in memory. As Write.
  absl::Status WriteReady() const;

  // Leaves at once. CANCELLED where nobody reads any more.
  absl::Status Write(const lasp::internal::v1::ModelReply& reply) const;

 private:
  const int descriptor_;
  const std::string device_;
};

}  // namespace lasp::worker
