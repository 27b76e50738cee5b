// lasp-model and lasp-model-cuda: compute with a trained model, for the command line, which starts
// them with a request on the standard input and reads the replies from the standard output.
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <google/protobuf/util/delimited_message_util.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "lasp/internal/v1/model_program.pb.h"
#include "proto/interchange/model_folder.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "proto/rpc/version.h"
#include "worker/inference/evaluation.h"
#include "worker/inference/model_device.h"
#include "worker/inference/reply_stream.h"
#include "worker/inference/sampling.h"

namespace {

using lasp::internal::v1::ModelReply;
using lasp::internal::v1::ModelRequest;

absl::Status Serve(const ModelRequest& request, const lasp::worker::ReplyStream& replies) {
  LASP_ASSIGN_OR_RETURN(const lasp::ModelFolder folder,
                        lasp::ModelFolder::Open(lasp::FilesOfFolder(request.folder())));
  if (folder.model().lrpe_theta() != lasp::v1::ModelSpec::LRPE_THETA_LEARNED) {
    LASP_RETURN_IF_ERROR(folder.CheckFixedTheta());
  }
  LASP_ASSIGN_OR_RETURN(const std::unique_ptr<lasp::worker::Backend> backend,
                        lasp::worker::OpenModelDevice(folder.model()));
  switch (request.body_case()) {
    case ModelRequest::kSample:
      return lasp::worker::RunSampling(request.sample(), folder, backend.get(), replies);
    case ModelRequest::kEvaluate:
      return lasp::worker::RunEvaluation(request.evaluate(), folder, backend.get(), replies);
    case ModelRequest::BODY_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("the request asks for nothing");
}

}  // namespace

int main(int argc, char** argv) {
  const char* const program = lasp::worker::ModelProgramName();
  if (argc > 1 && std::strcmp(argv[1], "--version") == 0) {
    std::printf("%s %s (%s)\n", program, lasp::Version(), lasp::Revision());
    return 0;
  }
  if (argc > 1 || isatty(STDIN_FILENO) != 0) {
    std::fprintf(stderr, "%s is started by 'lasp sample' and 'lasp evaluate', with a request\n",
                 program);
    return 2;
  }
  // Who asked is gone: nobody wants the answer.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGPIPE, SIG_IGN);
  lasp::InitializeLog({.level = lasp::LogLevel::kWarning, .component = program, .fields = {}});
  const lasp::worker::ReplyStream replies(STDOUT_FILENO, lasp::worker::ModelDeviceName());
  ModelRequest request;
  google::protobuf::io::FileInputStream input(STDIN_FILENO);
  bool clean_end = false;
  const absl::Status status =
      google::protobuf::util::ParseDelimitedFromZeroCopyStream(&request, &input, &clean_end)
          ? Serve(request, replies)
          : absl::InvalidArgumentError("the request cannot be read");
  if (status.ok()) {
    return 0;
  }
  ModelReply reply;
  reply.mutable_error()->set_code(static_cast<int>(status.code()));
  reply.mutable_error()->set_message(std::string(status.message()));
  replies.Write(reply).IgnoreError();
  return 1;
}
