// Text from a model.
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/commands/commands.h"
#include "client/error_report.h"
#include "client/exit_code.h"
#include "client/model_program.h"
#include "client/model_source.h"
#include "client/number_text.h"
#include "client/output.h"
#include "client/terminal_text.h"
#include "client/text_file.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::internal::v1::ModelDone;
using lasp::internal::v1::ModelReply;
using lasp::internal::v1::ModelRequest;
using lasp::internal::v1::SampledToken;

constexpr int kByteCount = 256;
// A token a byte, and four bytes each in the request.
constexpr size_t kMaxPromptBytes = size_t{256} << 20;

// Whether the model's tokens are bytes of text.
bool IsOfBytes(const ModelSource& source) {
  return source.model().vocab_size() == kByteCount ||
         (source.data() != nullptr && source.data()->format() == lasp::v1::DataSpec::FORMAT_BYTES);
}

// Empty where the prompt is given as tokens.
absl::StatusOr<std::string> PromptText(const SampleOptions& options) {
  if (!options.prompt_tokens.empty()) {
    return "";
  }
  if (options.prompt.has_value()) {
    return *options.prompt;
  }
  absl::StatusOr<std::string> text = ReadTextFile(options.prompt_file, kMaxPromptBytes);
  if (!text.ok()) {
    // A file that is not there is a wrong command line.
    return absl::InvalidArgumentError(text.status().message());
  }
  return text;
}

absl::Status CheckOnePrompt(const SampleOptions& options) {
  const int given = (options.prompt.has_value() ? 1 : 0) + (options.prompt_file.empty() ? 0 : 1) +
                    (options.prompt_tokens.empty() ? 0 : 1);
  return given == 1 ? absl::OkStatus()
                    : absl::InvalidArgumentError(
                          "expected one of --prompt, --prompt_file and --prompt_tokens");
}

absl::StatusOr<std::vector<int32_t>> Prompt(const SampleOptions& options, const std::string& text,
                                            const ModelSource& source) {
  if (!options.prompt_tokens.empty()) {
    return options.prompt_tokens;
  }
  if (!IsOfBytes(source)) {
    return WithHint(absl::InvalidArgumentError(absl::StrCat("the model has a vocabulary of ",
                                                            source.model().vocab_size(),
                                                            " tokens, not of bytes")),
                    "give the prompt as numbers of tokens, with --prompt_tokens");
  }
  if (text.empty()) {
    return absl::InvalidArgumentError("the prompt is empty: give it at least one byte");
  }
  std::vector<int32_t> tokens;
  tokens.reserve(text.size());
  for (const char byte : text) {
    tokens.push_back(static_cast<unsigned char>(byte));
  }
  return tokens;
}

// A token of text; of what is no byte, U+FFFD.
std::string BytesOf(int32_t token) {
  return token < kByteCount ? std::string(1, static_cast<char>(token)) : "\xEF\xBF\xBD";
}

// Prints tokens as they come.
class Stream {
 public:
  Stream(bool of_bytes, Console* console)
      : of_bytes_(of_bytes), is_terminal_(console->Out().is_tty), console_(*console) {}

  void Add(const SampledToken& token) {
    if (token.sample() != sample_) {
      EndSample(/*last=*/false);
      sample_ = token.sample();
    }
    if (!of_bytes_) {
      console_.Print(absl::StrCat(empty_ ? "" : " ", token.token()));
    } else if (is_terminal_) {
      console_.Print(text_.Add(BytesOf(token.token())));
    } else {
      console_.Print(BytesOf(token.token()));
    }
    ends_line_ = of_bytes_ && token.token() == '\n';
    empty_ = false;
  }

  // Text in a file or a pipe stays as the model made it.
  void EndSample(bool last) {
    if (empty_) {
      return;
    }
    console_.Print(text_.Finish());
    if (!ends_line_ && (!last || is_terminal_ || !of_bytes_)) {
      console_.Print("\n");
    }
    empty_ = true;
  }

 private:
  const bool of_bytes_;
  const bool is_terminal_;
  Console& console_;
  TerminalText text_;
  int32_t sample_ = 0;
  bool empty_ = true;
  bool ends_line_ = false;
};

double Rate(int64_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

// What `-o json` and `-o yaml` give.
Document Everything(const ModelSource& source, const ModelRequest& request,
                    const std::vector<std::vector<int32_t>>& samples, const ModelDone& done,
                    const std::string& device) {
  Document document;
  document["model"] = source.name();
  document["device"] = device;
  document["seed"] = request.sample().seed();
  document["prompt_tokens"] =
      std::vector<int32_t>(request.sample().prompt().begin(), request.sample().prompt().end());
  document["samples"] = Document::array();
  for (const std::vector<int32_t>& tokens : samples) {
    Document sample;
    sample["tokens"] = tokens;
    if (IsOfBytes(source)) {
      std::string text;
      for (const int32_t token : tokens) {
        text += BytesOf(token);
      }
      sample["text"] = text;
    }
    document["samples"].push_back(std::move(sample));
  }
  document["prompt_tokens_per_second"] = Rate(done.prompt_tokens(), done.prompt_seconds());
  document["tokens_per_second"] = Rate(done.tokens(), done.seconds());
  return document;
}

}  // namespace

absl::StatusOr<int> Sample(const ModelOptions& model, const SampleOptions& options,
                           const Words& words, Session* session) {
  LASP_RETURN_IF_ERROR(CheckOnePrompt(options));
  // A person who still types is no reason to hold a model's folder.
  LASP_ASSIGN_OR_RETURN(const std::string text, PromptText(options));
  LASP_ASSIGN_OR_RETURN(ModelSource source, ModelSource::Open(model, words, session));
  LASP_ASSIGN_OR_RETURN(const std::vector<int32_t> prompt, Prompt(options, text, source));
  ModelRequest request;
  request.set_folder(source.folder());
  auto& sampling = *request.mutable_sample();
  sampling.mutable_prompt()->Add(prompt.begin(), prompt.end());
  sampling.set_max_tokens(options.max_tokens);
  sampling.set_temperature(options.temperature);
  sampling.set_top_k(options.top_k);
  sampling.set_top_p(options.top_p);
  sampling.set_samples(options.samples);
  // Small enough for every reader of JSON.
  sampling.set_seed(options.seed.value_or(std::random_device{}()));
  Console& console = session->console();
  const OutputFormat format = session->options().output;
  const bool streams = IsTable(format) || format == OutputFormat::kName;
  Stream stream(IsOfBytes(source), &console);
  std::vector<std::vector<int32_t>> samples(static_cast<size_t>(streams ? 0 : options.samples));
  ModelDone done;
  const auto device = ComputeWithModel(
      model, request,
      [&](const ModelReply& reply) {
        if (reply.has_ready()) {
          source.Discard();
        } else if (reply.has_done()) {
          done = reply.done();
        } else if (reply.has_token() && streams) {
          stream.Add(reply.token());
        } else if (reply.has_token() && reply.token().sample() < options.samples) {
          samples[static_cast<size_t>(reply.token().sample())].push_back(reply.token().token());
        }
        return absl::OkStatus();
      },
      session);
  stream.EndSample(/*last=*/true);
  LASP_RETURN_IF_ERROR(device.status());
  if (!streams) {
    console.Print(DocumentText(Everything(source, request, samples, done, *device), format));
  }
  console.Verbose(absl::StrCat(
      "seed ", sampling.seed(), ", ", *device, ": ",
      FormatRate(Rate(done.prompt_tokens(), done.prompt_seconds())), " tokens/s of the prompt, ",
      FormatRate(Rate(done.tokens(), done.seconds())), " tokens/s after it"));
  return kExitOk;
}

}  // namespace lasp::client
