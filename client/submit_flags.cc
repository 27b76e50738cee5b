#include "client/submit_flags.h"

#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "client/flag_values.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using Line = CommandLine;

constexpr int64_t kMaxBytes = int64_t{1} << 60;

absl::Status Ok() { return absl::OkStatus(); }

FlagSpec SetFlag(const std::string& verb) {
  return {"--set", '\0', "PATH=VALUE", verb + "Replace a field; VALUE is YAML; repeatable",
          [](const std::string& value, Line* line) {
            line->submit.settings.push_back(value);
            return Ok();
          }};
}

// `verb` before what each does, where a command has several.
std::vector<FlagSpec> SubmitFlags(const std::string& verb) {
  return {{"--file",
           'f',
           "FILE",
           verb + "The job; - for the standard input",
           [](const std::string& value, Line* line) {
             line->submit.file = value;
             return Ok();
           },
           {},
           true},
          SetFlag(verb),
          {"--id", '\0', "ID", verb + "The job's id (default: one is made)",
           [](const std::string& value, Line* line) {
             line->submit.id = value;
             return Ok();
           }},
          {"--wait", 'w', "", verb + "Show the progress until the job ends",
           [](const std::string&, Line* line) {
             line->submit.wait = true;
             return Ok();
           }},
          {"--dry-run",
           '\0',
           "WHERE",
           verb + "server: only check it; client: only read it",
           [](const std::string& value, Line* line) {
             LASP_ASSIGN_OR_RETURN(const size_t index,
                                   ReadChoice("--dry-run", value, {"server", "client"}));
             line->submit.dry_run = index == 0 ? DryRun::kServer : DryRun::kClient;
             return Ok();
           },
           {"server", "client"},
           false,
           true}};
}

}  // namespace

CommandSpec SubmitCommand() {
  std::vector<FlagSpec> flags = SubmitFlags("");
  flags.push_back({"--from", '\0', "JOB[/STEP]", "Go on behind a checkpoint of another job",
                   [](const std::string& value, Line* line) {
                     line->submit.start_from = value;
                     return Ok();
                   }});
  return {"submit",
          "Jobs",
          "",
          "Submit a training job",
          "Reads a job in YAML or JSON (display_name, labels, checkpoint_retention, spec),\n"
          "queues it and prints its name. With --wait it shows the progress and exits with\n"
          "0 when the job SUCCEEDED, with 1 when it FAILED or was CANCELLED; Ctrl-C leaves\n"
          "it running.",
          {"lasp submit -f job.yaml --wait", "lasp submit -f job.yaml --set spec.max_steps=500",
           "lasp submit -f job.yaml --id long --set 'spec.data.train_paths=[a.txt, b.txt]'",
           "lasp submit -f more-gpus.yaml --from long",
           "lasp submit -f job.yaml --dry-run=server -o yaml   # checked, not stored"},
          std::move(flags)};
}

CommandSpec UpdateCommand() {
  return {"update",
          "Jobs",
          "NAME",
          "Change a job's display name, labels, or how many checkpoints it keeps",
          "What is not named stays; null takes a label away. The spec is never changed:\n"
          "submit another job --from this one.",
          {"lasp update quickstart --set labels.team=nlp --set labels.old=null",
           "lasp update quickstart --set checkpoint_retention.keep_last=10",
           "lasp update quickstart --set checkpoint_retention.keep_every_steps=1000"},
          {SetFlag("")}};
}

CommandSpec CheckpointsCommand() {
  std::vector<FlagSpec> flags = {
      {"--to",
       '\0',
       "DIR",
       "export: the folder to make; an empty one is taken too",
       [](const std::string& value, Line* line) {
         line->exporting.folder = value;
         return Ok();
       },
       {},
       true},
      {"--dtype",
       '\0',
       "TYPE",
       "export: fp32 (default) or bf16, half the size",
       [](const std::string& value, Line* line) {
         LASP_ASSIGN_OR_RETURN(const size_t index, ReadChoice("--dtype", value, {"fp32", "bf16"}));
         line->exporting.type = index == 0 ? ElementType::kFloat32 : ElementType::kBfloat16;
         return Ok();
       },
       {"fp32", "bf16"}},
      {"--max_file_bytes", '\0', "N", "export: split beyond this (default 5000000000)",
       [](const std::string& value, Line* line) {
         return SetNumber<int64_t>("--max_file_bytes", value, 1, kMaxBytes,
                                   &line->exporting.max_file_bytes);
       }}};
  std::vector<FlagSpec> submit = SubmitFlags("import: ");
  flags.insert(flags.end(), std::make_move_iterator(submit.begin()),
               std::make_move_iterator(submit.end()));
  return {"checkpoints",
          "Jobs",
          "VERB NAME|DIR [STEP]",
          "The checkpoints of a job: list, describe, verify, delete, export; import",
          "verify has the coordinator read one back from the disk, and waits for it.\n"
          "Without STEP the newest committed one is meant. How many are kept says the job's\n"
          "checkpoint_retention; the one a job would resume from cannot be deleted.\n"
          "export downloads the model's weights into a folder in the layout of Hugging\n"
          "Face's TransNormerLLM: safetensors and config.json, whole or not at all;\n"
          "not that of a LINEAR_TRANSFORMER or of layers of softmax attention, for which\n"
          "there is no such layout.\n"
          "import submits a job that begins with such a folder's weights; its model is the\n"
          "folder's, and ranks read it as they read data: beneath --path_roots, by the same\n"
          "path, or by that of spec.model.initial_weights.path.",
          {"lasp checkpoints list quickstart", "lasp checkpoints verify quickstart",
           "lasp checkpoints delete quickstart 1200",
           "lasp checkpoints export quickstart --to model --dtype bf16",
           "lasp checkpoints import model -f job.yaml --wait"},
          std::move(flags),
          {"list", "describe", "verify", "delete", "export", "import"}};
}

}  // namespace lasp::client
