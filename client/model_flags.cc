#include "client/model_flags.h"

#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/enum_names.h"
#include "client/flag_values.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using Line = CommandLine;

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
constexpr int64_t kMostTokens = int64_t{1} << 40;
constexpr int64_t kMostSamples = 1'000'000;

absl::Status Ok() { return absl::OkStatus(); }

absl::Status Expected(const char* flag, const std::string& value, const char* what) {
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", value, ": expected ", what));
}

absl::Status SetPromptTokens(const std::string& value, Line* line) {
  for (const absl::string_view word : absl::StrSplit(value, ',')) {
    int32_t token = 0;
    if (!absl::SimpleAtoi(word, &token) || token < 0) {
      return Expected("--prompt_tokens", value, "tokens as numbers, such as 17,4,255");
    }
    line->sample.prompt_tokens.push_back(token);
  }
  return Ok();
}

absl::Status SetTemperature(const std::string& value, Line* line) {
  double temperature = 0;
  if (!absl::SimpleAtod(value, &temperature) || !(temperature >= 0 && temperature <= 1e6)) {
    return Expected("--temperature", value, "a number from 0 on");
  }
  line->sample.temperature = temperature;
  return Ok();
}

absl::Status SetTopP(const std::string& value, Line* line) {
  double top_p = 0;
  if (!absl::SimpleAtod(value, &top_p) || !(top_p > 0 && top_p <= 1)) {
    return Expected("--top_p", value, "a number above 0, up to 1");
  }
  line->sample.top_p = top_p;
  return Ok();
}

absl::Status SetSeed(const std::string& value, Line* line) {
  uint64_t seed = 0;
  if (!absl::SimpleAtoi(value, &seed)) {
    return Expected("--seed", value, "a whole number from 0 on");
  }
  line->sample.seed = seed;
  return Ok();
}

FlagSpec FileFlag(const char* name, const char* value, const char* help,
                  absl::Status (*set)(const std::string& value, Line* line)) {
  return {name, '\0', value, help, set, {}, /*is_file=*/true};
}

// What both commands take, after their own.
std::vector<FlagSpec> WithModelFlags(std::vector<FlagSpec> flags) {
  std::vector<FlagSpec> shared = {
      {"--device",
       '\0',
       "DEVICE",
       "CPU, GPU, or ANY (default): a GPU if there is one",
       [](const std::string& value, Line* line) {
         LASP_ASSIGN_OR_RETURN(const size_t index,
                               ReadChoice("--device", value, {"ANY", "CPU", "GPU"}));
         line->model.device = static_cast<ModelDevice>(index);
         return Ok();
       },
       {"ANY", "CPU", "GPU"}},
      FileFlag("--model", "DIR", "An exported model, instead of a job's checkpoint",
               [](const std::string& value, Line* line) {
                 line->model.folder = value;
                 return Ok();
               }),
      FileFlag("--keep", "DIR", "Leave the exported checkpoint there, for --model",
               [](const std::string& value, Line* line) {
                 line->model.keep = value;
                 return Ok();
               }),
      FileFlag("--model_program", "FILE", "Computes (default: lasp-model[-cuda] beside lasp)",
               [](const std::string& value, Line* line) {
                 line->model.program = value;
                 return Ok();
               })};
  flags.insert(flags.end(), std::make_move_iterator(shared.begin()),
               std::make_move_iterator(shared.end()));
  return flags;
}

}  // namespace

CommandSpec SampleCommand() {
  std::vector<FlagSpec> flags = {
      {"--prompt", '\0', "TEXT", "What is to be continued",
       [](const std::string& value, Line* line) {
         line->sample.prompt = value;
         return Ok();
       }},
      FileFlag("--prompt_file", "FILE", "The same from a file; - for the standard input",
               [](const std::string& value, Line* line) {
                 line->sample.prompt_file = value;
                 return Ok();
               }),
      {"--prompt_tokens", '\0', "N,N,...", "The same as numbers of tokens", SetPromptTokens},
      {"--max_tokens", 'n', "N", "Generate so many (default 256)",
       [](const std::string& value, Line* line) {
         return SetNumber<int64_t>("--max_tokens", value, 1, kMostTokens, &line->sample.max_tokens);
       }},
      {"--temperature", '\0', "T", "0: always the most likely token (default 1)", SetTemperature},
      {"--top_k", '\0', "K", "Draw from the K most likely tokens alone",
       [](const std::string& value, Line* line) {
         return SetNumber<int64_t>("--top_k", value, 1, kMost, &line->sample.top_k);
       }},
      {"--top_p", '\0', "P", "Draw from the likeliest tokens that hold P", SetTopP},
      {"--seed", '\0', "N", "The same seed, the same text (default: drawn)", SetSeed},
      {"--samples", '\0', "N", "Continue it so many times (default 1)",
       [](const std::string& value, Line* line) {
         return SetNumber<int>("--samples", value, 1, kMostSamples, &line->sample.samples);
       }}};
  return {"sample",
          "Jobs",
          "[NAME[/STEP]]",
          "Generate text from a job's checkpoint",
          "Exports the newest checkpoint, or that of STEP, and computes on this machine,\n"
          "in memory that does not grow with the text. Models of bytes take and give text;\n"
          "others tokens as numbers. Prints what follows the prompt; with -o json all.\n"
          "With --top_k and --top_p, top_p counts among what top_k leaves.",
          {"lasp sample quickstart --prompt 'Once upon a time'",
           "lasp sample quickstart/1200 --prompt_file start.txt --temperature 0.7",
           "lasp sample --model exported --prompt_tokens 17,4,255 -n 64 --seed 1 -o json"},
          WithModelFlags(std::move(flags))};
}

CommandSpec EvaluateCommand() {
  std::vector<FlagSpec> flags = {
      FileFlag("--data", "FILE", "The corpus; repeatable: one stream of tokens",
               [](const std::string& value, Line* line) {
                 line->evaluate.files.push_back(value);
                 return Ok();
               }),
      {"--format", '\0', "FORMAT", "Of the files (default: of the job's data)",
       [](const std::string& value, Line* line) {
         const auto& type = *lasp::v1::DataSpec::Format_descriptor();
         LASP_RETURN_IF_ERROR(ReadChoice("--format", value, ShortEnumNames(type)).status());
         line->evaluate.format =
             static_cast<lasp::v1::DataSpec::Format>(FindEnumValue(type, value)->number());
         return Ok();
       },
       ShortEnumNames(*lasp::v1::DataSpec::Format_descriptor())},
      {"--sequence_length", 'l', "N", "Tokens of a sequence (default: the job's)",
       [](const std::string& value, Line* line) {
         return SetNumber<int64_t>("--sequence_length", value, 1, kMostTokens,
                                   &line->evaluate.sequence_length);
       }},
      {"--max_tokens", 'n', "N", "At most so many (default: all whole sequences)",
       [](const std::string& value, Line* line) {
         return SetNumber<int64_t>("--max_tokens", value, 1, kMostTokens,
                                   &line->evaluate.max_tokens);
       }}};
  return {"evaluate",
          "Jobs",
          "[NAME[/STEP]]",
          "Show the loss of a job's checkpoint on a corpus of yours",
          "Exports the newest checkpoint, or that of STEP, and computes on this machine.\n"
          "Sequences of any length go by chunks, in memory that does not grow with them.\n"
          "On a job's held-out data, at its length, it is the loss that the job reports.",
          {"lasp evaluate quickstart --data held-out.txt",
           "lasp evaluate quickstart/1200 --data book.txt --sequence_length 1000000",
           "lasp evaluate --model exported --data a.bin --format LLMC -l 4096 -o json"},
          WithModelFlags(std::move(flags))};
}

}  // namespace lasp::client
