// Text, token by token.
#pragma once

#include "absl/status/status.h"
#include "lasp/internal/v1/model_program.pb.h"
#include "proto/interchange/model_folder.h"
#include "worker/device/backend.h"
#include "worker/inference/reply_stream.h"

namespace lasp::worker {

// Continues the prompt with the model of `folder`, each token a reply of its own, and ModelDone.
// INVALID_ARGUMENT for an empty prompt and for one with tokens outside the vocabulary; errors of
// RecurrentModel, of the folder and of the stream.
absl::Status RunSampling(const lasp::internal::v1::SampleRequest& request,
                         const ModelFolder& folder, Backend* backend, const ReplyStream& replies);

}  // namespace lasp::worker
