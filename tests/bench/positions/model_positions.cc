// What a trained model makes of the positions of long sequences, which a mean loss does not show.
//
//   model_positions losses FOLDER FORMAT FILE LENGTH SEQUENCES
//     the mean loss by position: of the first label, of the second, of the next two, the next four
//     and so on up to the sequences' length
//   model_positions answers FOLDER FORMAT FILE LENGTH SEQUENCES ASKS
//     from position ASKS on each sequence is questions of one token, an answer of one token behind
//     each: how many answers the model finds the likeliest; and how many where it is given the
//     questions alone, with a state of zeros instead of the one that the tokens before have left
//
// FOLDER is a model as `lasp checkpoints export` writes it. The corpus is cut as a job's held-out
// data are: sequences of LENGTH labels, one after another. Prints one JSON object.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "lasp/v1/training_spec.pb.h"
#include "proto/interchange/model_folder.h"
#include "proto/rpc/status_macros.h"
#include "worker/data/corpus.h"
#include "worker/inference/model_device.h"
#include "worker/inference/recurrent_model.h"

namespace lasp::worker {
namespace {

// Enough for the largest products, few beside the weights.
constexpr int64_t kMostTokens = 8192;

struct Arguments {
  std::string folder;
  lasp::v1::DataSpec::Format format = lasp::v1::DataSpec::FORMAT_UNSPECIFIED;
  std::string file;
  int64_t length = 0;
  int64_t sequences = 0;
  int64_t asks = -1;  // of `answers` alone
};

absl::StatusOr<Arguments> Parse(const std::vector<std::string>& given) {
  Arguments arguments;
  const bool answers = given.size() == 7 && given[0] == "answers";
  if (!answers && !(given.size() == 6 && given[0] == "losses")) {
    return absl::InvalidArgumentError(
        "expected losses FOLDER FORMAT FILE LENGTH SEQUENCES, or answers with ASKS behind these");
  }
  arguments.folder = given[1];
  arguments.file = given[3];
  if (!lasp::v1::DataSpec::Format_Parse("FORMAT_" + given[2], &arguments.format)) {
    return absl::InvalidArgumentError(absl::StrCat("unknown format ", given[2]));
  }
  if (!absl::SimpleAtoi(given[4], &arguments.length) || arguments.length < 2 ||
      !absl::SimpleAtoi(given[5], &arguments.sequences) || arguments.sequences < 1) {
    return absl::InvalidArgumentError("expected a length of 2 or more and a number of sequences");
  }
  if (answers && (!absl::SimpleAtoi(given[6], &arguments.asks) || arguments.asks < 0 ||
                  arguments.asks + 2 > arguments.length)) {
    return absl::InvalidArgumentError("expected a question's position within the sequences");
  }
  return arguments;
}

// A model with the sequences that it is shown.
class Examination {
 public:
  static absl::StatusOr<std::unique_ptr<Examination>> Open(const Arguments& arguments) {
    auto made = std::unique_ptr<Examination>(new Examination(arguments));
    LASP_ASSIGN_OR_RETURN(const ModelFolder folder,
                          ModelFolder::Open(FilesOfFolder(made->folder())));
    const ModelConfig config = ModelConfig::FromSpec(folder.model());
    LASP_ASSIGN_OR_RETURN(made->backend_, OpenModelDevice(folder.model()));
    LASP_ASSIGN_OR_RETURN(
        made->corpus_, Corpus::Open({arguments.file}, arguments.format, config.vocab_size, {"/"}));
    if (made->corpus_->token_count() <= arguments.length * arguments.sequences) {
      return absl::InvalidArgumentError(absl::StrCat(
          arguments.file, " holds ", made->corpus_->token_count(), " tokens, too few for ",
          arguments.sequences, " sequences of ", arguments.length, " and the last one's label"));
    }
    LASP_ASSIGN_OR_RETURN(
        made->model_,
        RecurrentModel::Create(
            config, {.sequences = 1, .tokens = std::min(kMostTokens, arguments.length)},
            made->backend_.get(),
            [&folder](const std::string& tensor, int64_t begin, int64_t count, float* to) {
              return folder.Read(tensor, begin, count, to);
            }));
    return made;
  }

  absl::StatusOr<std::string> Losses() {
    std::vector<double> sums;
    std::vector<int64_t> ends;
    for (int64_t end = 1;; end = std::min(2 * end, arguments_.length)) {
      ends.push_back(end);
      if (end == arguments_.length) {
        break;
      }
    }
    sums.resize(ends.size());
    double before = 0;
    for (int64_t sequence = 0; sequence < arguments_.sequences; ++sequence) {
      model_->Begin();
      int64_t begin = 0;
      for (size_t bucket = 0; bucket < ends.size(); begin = ends[bucket], ++bucket) {
        LASP_RETURN_IF_ERROR(Advance(sequence, begin, ends[bucket], /*counts=*/true));
        LASP_ASSIGN_OR_RETURN(const double sum, model_->LossSum());
        sums[bucket] += sum - before;
        before = sum;
      }
    }
    std::vector<std::string> buckets;
    for (size_t bucket = 0; bucket < ends.size(); ++bucket) {
      const int64_t begin = bucket == 0 ? 0 : ends[bucket - 1];
      const double labels = static_cast<double>((ends[bucket] - begin) * arguments_.sequences);
      buckets.push_back(absl::StrFormat("{\"begin\": %d, \"end\": %d, \"loss\": %.6f}", begin,
                                        ends[bucket], sums[bucket] / labels));
    }
    return absl::StrFormat("{%s, \"buckets\": [%s]}", About(), absl::StrJoin(buckets, ", "));
  }

  absl::StatusOr<std::string> Answers() {
    int64_t right = 0;
    int64_t right_when_cut = 0;
    for (int64_t sequence = 0; sequence < arguments_.sequences; ++sequence) {
      model_->Begin();
      LASP_RETURN_IF_ERROR(Advance(sequence, 0, arguments_.asks, /*counts=*/false));
      LASP_RETURN_IF_ERROR(CountRight(sequence, &right));
      model_->Begin();
      LASP_RETURN_IF_ERROR(CountRight(sequence, &right_when_cut));
    }
    const int64_t asked = arguments_.sequences * ((arguments_.length - arguments_.asks) / 2);
    return absl::StrFormat("{%s, \"asked\": %d, \"right\": %d, \"right_when_cut\": %d}", About(),
                           asked, right, right_when_cut);
  }

 private:
  explicit Examination(const Arguments& arguments) : arguments_(arguments) {}

  const std::string& folder() const { return arguments_.folder; }

  std::string About() const {
    return absl::StrFormat("\"device\": \"%s\", \"sequence_length\": %d, \"sequences\": %d",
                           ModelDeviceName(), arguments_.length, arguments_.sequences);
  }

  // Positions [begin, end) of a sequence, where `counts` with their losses.
  absl::Status Advance(int64_t sequence, int64_t begin, int64_t end, bool counts) {
    for (int64_t tokens = 0; begin < end; begin += tokens) {
      tokens = std::min(kMostTokens, end - begin);
      std::vector<int32_t> stream(static_cast<size_t>(tokens + 1));
      LASP_RETURN_IF_ERROR(
          corpus_->Read(sequence * arguments_.length + begin, tokens + 1, stream.data()));
      const absl::Span<const int32_t> all(stream);
      LASP_RETURN_IF_ERROR(model_->Advance(all.first(static_cast<size_t>(tokens))));
      if (counts) {
        LASP_RETURN_IF_ERROR(model_->AddLoss(all.subspan(1)));
      }
    }
    return absl::OkStatus();
  }

  absl::Status CountRight(int64_t sequence, int64_t* right) {
    std::vector<float> logits;
    for (int64_t ask = arguments_.asks; ask + 2 <= arguments_.length; ask += 2) {
      int32_t answer = 0;
      LASP_RETURN_IF_ERROR(corpus_->Read(sequence * arguments_.length + ask + 1, 1, &answer));
      LASP_RETURN_IF_ERROR(Advance(sequence, ask, ask + 1, /*counts=*/false));
      LASP_RETURN_IF_ERROR(model_->Logits(0, &logits));
      *right += std::max_element(logits.begin(), logits.end()) - logits.begin() == answer ? 1 : 0;
      LASP_RETURN_IF_ERROR(Advance(sequence, ask + 1, ask + 2, /*counts=*/false));
    }
    return absl::OkStatus();
  }

  const Arguments arguments_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Corpus> corpus_;
  std::unique_ptr<RecurrentModel> model_;
};

absl::StatusOr<std::string> Run(const std::vector<std::string>& given) {
  LASP_ASSIGN_OR_RETURN(const Arguments arguments, Parse(given));
  LASP_ASSIGN_OR_RETURN(const std::unique_ptr<Examination> examination,
                        Examination::Open(arguments));
  return arguments.asks < 0 ? examination->Losses() : examination->Answers();
}

}  // namespace
}  // namespace lasp::worker

int main(int argc, char** argv) {
  const absl::StatusOr<std::string> said = lasp::worker::Run({argv + 1, argv + argc});
  if (!said.ok()) {
    std::fprintf(stderr, "model_positions: %s\n", said.status().ToString().c_str());
    return 1;
  }
  std::printf("%s\n", said->c_str());
  return 0;
}
