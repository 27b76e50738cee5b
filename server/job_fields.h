// What a job may say around its spec: the fields that an update may change too.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"
#include "lasp/v1/training_job.pb.h"
#include "proto/rpc/error_details.h"

namespace lasp::server {

inline constexpr int kMaxDisplayNameCharacters = 128;

struct LabelLimits {
  int count = 64;
  // Of a value.
  int characters = 256;
};

// Whether `key` is `[a-z]([a-z0-9_-]{0,62})`.
bool IsValidLabelKey(absl::string_view key);

// Every violation of display_name and labels, under the paths a user writes.
std::vector<FieldViolation> CheckJobFields(const v1::TrainingJob& job,
                                           const LabelLimits& limits = {});

}  // namespace lasp::server
