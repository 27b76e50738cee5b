#include "worker/inference/sampling.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"
#include "worker/inference/recurrent_model.h"
#include "worker/inference/token_sampler.h"

namespace lasp::worker {
namespace {

using lasp::internal::v1::ModelDone;
using lasp::internal::v1::ModelReply;
using lasp::internal::v1::SampleRequest;

// Enough rows to keep a matrix product busy.
constexpr int64_t kChunkTokens = 512;

absl::Status CheckPrompt(const SampleRequest& request, int64_t vocab_size) {
  if (request.prompt().empty()) {
    return absl::InvalidArgumentError("the prompt is empty: give it at least one token");
  }
  for (int i = 0; i < request.prompt_size(); ++i) {
    if (request.prompt(i) < 0 || request.prompt(i) >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat("token ", request.prompt(i), " at ", i,
                                                     " of the prompt is outside the model's ",
                                                     "vocabulary of ", vocab_size));
    }
  }
  return absl::OkStatus();
}

double Now() { return absl::ToDoubleSeconds(SystemClock().Monotonic()); }

}  // namespace

absl::Status RunSampling(const SampleRequest& request, const ModelFolder& folder, Backend* backend,
                         const ReplyStream& replies) {
  const ModelConfig config = ModelConfig::FromSpec(folder.model());
  LASP_RETURN_IF_ERROR(CheckPrompt(request, config.vocab_size));
  const absl::Span<const int32_t> prompt(request.prompt().data(),
                                         static_cast<size_t>(request.prompt_size()));
  LASP_ASSIGN_OR_RETURN(
      const std::unique_ptr<RecurrentModel> model,
      RecurrentModel::Create(
          config,
          {.sequences = 1, .tokens = std::min(kChunkTokens, static_cast<int64_t>(prompt.size()))},
          backend, [&folder](const std::string& tensor, int64_t begin, int64_t count, float* to) {
            return folder.Read(tensor, begin, count, to);
          }));
  LASP_RETURN_IF_ERROR(replies.WriteReady());
  ModelReply end;
  ModelDone& done = *end.mutable_done();
  std::vector<float> logits;
  for (int sample = 0; sample < request.samples(); ++sample) {
    TokenSampler sampler(
        {.temperature = request.temperature(), .top_k = request.top_k(), .top_p = request.top_p()},
        request.seed() + static_cast<uint64_t>(sample));
    const double begin = Now();
    model->Begin();
    for (size_t at = 0; at < prompt.size(); at += kChunkTokens) {
      LASP_RETURN_IF_ERROR(model->Advance(prompt.subspan(at, kChunkTokens)));
    }
    LASP_RETURN_IF_ERROR(model->Logits(0, &logits));
    const double read = Now();
    for (int64_t made = 0; made < request.max_tokens(); ++made) {
      LASP_ASSIGN_OR_RETURN(const int32_t token, sampler.Sample(logits));
      ModelReply reply;
      reply.mutable_token()->set_sample(sample);
      reply.mutable_token()->set_token(token);
      LASP_RETURN_IF_ERROR(replies.Write(reply));
      if (made + 1 < request.max_tokens()) {
        LASP_RETURN_IF_ERROR(model->Advance({token}));
        LASP_RETURN_IF_ERROR(model->Logits(0, &logits));
      }
    }
    done.set_prompt_tokens(done.prompt_tokens() + request.prompt_size());
    done.set_tokens(done.tokens() + request.max_tokens());
    done.set_prompt_seconds(done.prompt_seconds() + read - begin);
    done.set_seconds(done.seconds() + Now() - read);
  }
  return replies.Write(end);
}

}  // namespace lasp::worker
