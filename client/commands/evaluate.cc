// A model's loss on the user's own data.
#include <cmath>
#include <filesystem>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/commands/commands.h"
#include "client/description.h"
#include "client/enum_names.h"
#include "client/error_report.h"
#include "client/exit_code.h"
#include "client/model_program.h"
#include "client/model_source.h"
#include "client/number_text.h"
#include "client/output.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::internal::v1::EvaluateRequest;
using lasp::internal::v1::EvaluationPart;
using lasp::internal::v1::ModelDone;
using lasp::internal::v1::ModelReply;
using lasp::internal::v1::ModelRequest;
using lasp::v1::DataSpec;

constexpr int kByteCount = 256;

absl::Status TakeData(const EvaluateOptions& options, const ModelSource& source,
                      EvaluateRequest* request) {
  for (const std::string& file : options.files) {
    std::error_code error;
    request->add_paths(std::filesystem::absolute(file, error).lexically_normal().string());
    if (error) {
      return absl::InvalidArgumentError(absl::StrCat(file, ": ", error.message()));
    }
  }
  request->set_format(options.format);
  if (options.format == DataSpec::FORMAT_UNSPECIFIED && source.data() != nullptr) {
    request->set_format(source.data()->format());
  }
  if (request->format() == DataSpec::FORMAT_UNSPECIFIED &&
      source.model().vocab_size() == kByteCount) {
    request->set_format(DataSpec::FORMAT_BYTES);
  }
  if (request->format() == DataSpec::FORMAT_UNSPECIFIED) {
    return absl::InvalidArgumentError("of which format are the data? name it with --format");
  }
  request->set_sequence_length(options.sequence_length);
  if (options.sequence_length == 0 && source.data() != nullptr) {
    request->set_sequence_length(source.data()->sequence_length());
  }
  if (request->sequence_length() == 0) {
    return absl::InvalidArgumentError(
        "how long is a sequence? a folder does not say: give --sequence_length");
  }
  request->set_max_tokens(options.max_tokens);
  return absl::OkStatus();
}

struct Evaluation {
  const ModelSource& source;
  const EvaluateRequest& request;
  const ModelDone& done;
  std::string device;

  double perplexity() const { return std::exp(done.loss()); }

  bool of_bytes() const { return request.format() == DataSpec::FORMAT_BYTES; }

  double bits_per_byte() const { return done.loss() / std::log(2.0); }

  double tokens_per_second() const {
    return done.seconds() > 0 ? static_cast<double>(done.tokens()) / done.seconds() : 0;
  }
};

Document ToDocument(const Evaluation& evaluation) {
  Document document;
  document["model"] = evaluation.source.name();
  document["device"] = evaluation.device;
  document["loss"] = evaluation.done.loss();
  document["perplexity"] = evaluation.perplexity();
  if (evaluation.of_bytes()) {
    document["bits_per_byte"] = evaluation.bits_per_byte();
  }
  document["tokens"] = evaluation.done.tokens();
  document["sequences"] = evaluation.done.sequences();
  document["sequence_length"] = evaluation.request.sequence_length();
  document["format"] = ShortEnumName(*DataSpec::Format_descriptor(), evaluation.request.format());
  document["tokens_per_second"] = evaluation.tokens_per_second();
  return document;
}

std::string Describe(const Evaluation& evaluation, const Terminal& terminal) {
  Description description(terminal);
  description.Line("Model", evaluation.source.name(), Style::kBold);
  description.Line("Loss", absl::StrFormat("%.6f nats a token", evaluation.done.loss()));
  description.Line("Perplexity", absl::StrFormat("%.6g", evaluation.perplexity()));
  if (evaluation.of_bytes()) {
    description.Line("Bits a byte", absl::StrFormat("%.6f", evaluation.bits_per_byte()));
  }
  description.Line("Tokens",
                   absl::StrCat(evaluation.done.tokens(), " in ", evaluation.done.sequences(),
                                " sequences of ", evaluation.request.sequence_length()));
  description.Line("Speed", absl::StrCat(FormatRate(evaluation.tokens_per_second()),
                                         " tokens/s on a ", evaluation.device));
  return description.Take();
}

}  // namespace

absl::StatusOr<int> Evaluate(const ModelOptions& model, const EvaluateOptions& options,
                             const Words& words, Session* session) {
  if (options.files.empty()) {
    return absl::InvalidArgumentError("on which data? name files with --data");
  }
  LASP_ASSIGN_OR_RETURN(ModelSource source, ModelSource::Open(model, words, session));
  ModelRequest request;
  request.set_folder(source.folder());
  LASP_RETURN_IF_ERROR(TakeData(options, source, request.mutable_evaluate()));
  Console& console = session->console();
  ModelDone done;
  const auto device = ComputeWithModel(
      model, request,
      [&](const ModelReply& reply) {
        if (reply.has_ready()) {
          source.Discard();
        } else if (reply.has_done()) {
          done = reply.done();
        } else if (reply.has_evaluated()) {
          const EvaluationPart& part = reply.evaluated();
          console.DrawProgress(
              absl::StrCat("evaluating: ", FormatPercent(part.tokens(), part.total_tokens()),
                           " of ", FormatRate(static_cast<double>(part.total_tokens())),
                           " tokens, loss ", FormatLoss(part.loss())));
        }
        return absl::OkStatus();
      },
      session);
  console.ClearProgress();
  if (absl::IsNotFound(device.status())) {
    // A file that is not there is a wrong command line.
    return absl::InvalidArgumentError(device.status().message());
  }
  LASP_RETURN_IF_ERROR(device.status());
  const Evaluation evaluation{source, request.evaluate(), done, *device};
  const OutputFormat format = session->options().output;
  console.Print(IsTable(format) || format == OutputFormat::kName
                    ? Describe(evaluation, console.Out())
                    : DocumentText(ToDocument(evaluation), format));
  return kExitOk;
}

}  // namespace lasp::client
