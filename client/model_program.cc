#include "client/model_program.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "client/error_report.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::internal::v1::ModelReply;
using lasp::internal::v1::ModelRequest;

constexpr char kCpuProgram[] = "lasp-model";
constexpr char kGpuProgram[] = "lasp-model-cuda";

// The program of that name beside this one; empty where this one cannot be found.
std::string Beside(const char* name) {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof(path) - 1);
  if (size <= 0) {
    return "";
  }
  const std::string own(path, static_cast<size_t>(size));
  return absl::StrCat(own.substr(0, own.rfind('/') + 1), name);
}

bool IsThere(const std::string& program) { return access(program.c_str(), X_OK) == 0; }

class Computation {
 public:
  Computation(const ModelRequest& request, const ModelReplyHandler& on_reply)
      : request_(request), on_reply_(on_reply) {}

  absl::Status Run(const std::string& program, bool quiet) {
    return RunModelProcess(program, request_, quiet, [this](const ModelReply& reply) {
      if (reply.has_ready()) {
        device_ = reply.ready().device();
      }
      return on_reply_(reply);
    });
  }

  // Empty until the model is in memory.
  const std::string& device() const { return device_; }

 private:
  const ModelRequest& request_;
  const ModelReplyHandler& on_reply_;
  std::string device_;
};

}  // namespace

absl::StatusOr<std::string> ComputeWithModel(const ModelOptions& options,
                                             const ModelRequest& request,
                                             const ModelReplyHandler& on_reply, Session* session) {
  Computation computation(request, on_reply);
  if (!options.program.empty()) {
    LASP_RETURN_IF_ERROR(computation.Run(options.program, /*quiet=*/false));
    return computation.device();
  }
  const std::string gpu_program = Beside(kGpuProgram);
  if (options.device == ModelDevice::kAny && IsThere(gpu_program)) {
    absl::Status status = computation.Run(gpu_program, /*quiet=*/true);
    if (status.ok()) {
      return computation.device();
    }
    if (!computation.device().empty() || absl::IsCancelled(status)) {
      return status;
    }
    session->console().Verbose(absl::StrCat("on CPUs: ", absl::string_view(status.message())));
  }
  const std::string program =
      options.device == ModelDevice::kGpu ? gpu_program : Beside(kCpuProgram);
  if (!IsThere(program)) {
    return WithHint(
        absl::FailedPreconditionError(absl::StrCat("there is no ", program, " to compute with")),
        "name it with --model_program, or install it beside lasp");
  }
  LASP_RETURN_IF_ERROR(computation.Run(program, /*quiet=*/false));
  return computation.device();
}

}  // namespace lasp::client
