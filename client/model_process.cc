#include "client/model_process.h"

#include <fcntl.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <google/protobuf/util/delimited_message_util.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/interrupt.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/unique_fd.h"

namespace lasp::client {
namespace {

using lasp::internal::v1::ModelReply;
using lasp::internal::v1::ModelRequest;

absl::Status StartError(const std::string& program, int error) {
  return absl::FailedPreconditionError(
      absl::StrCat("cannot start ", program, ": ", std::strerror(error)));
}

// In memory, so that nobody waits for a reader.
absl::StatusOr<UniqueFd> RequestFile(const ModelRequest& request) {
  UniqueFd file(memfd_create("request", MFD_CLOEXEC));
  if (file.get() < 0 ||
      !google::protobuf::util::SerializeDelimitedToFileDescriptor(request, file.get()) ||
      lseek(file.get(), 0, SEEK_SET) != 0) {
    return absl::InternalError(absl::StrCat("writing the request: ", std::strerror(errno)));
  }
  return file;
}

// What the parts of posix_spawn take is freed with them.
class SpawnPlan {
 public:
  SpawnPlan() {
    posix_spawn_file_actions_init(&actions_);
    posix_spawnattr_init(&attributes_);
  }

  ~SpawnPlan() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }

  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;

  // Gives the process, or what failed in *error.
  pid_t Start(const std::string& program, int input, int output, bool quiet, int* error) {
    posix_spawn_file_actions_adddup2(&actions_, input, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions_, output, STDOUT_FILENO);
    if (quiet) {
      posix_spawn_file_actions_addopen(&actions_, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    }
    // SIGINT and others are blocked here, and the program is to be ended by them.
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes_, &none);
    sigset_t defaults;
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_setsigdefault(&attributes_, &defaults);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    std::string name = program;
    char* const arguments[] = {name.data(), nullptr};
    pid_t pid = -1;
    *error = posix_spawn(&pid, program.c_str(), &actions_, &attributes_, arguments, environ);
    return pid;
  }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

// To the end of the stream.
absl::Status TakeReplies(int descriptor, const ModelReplyHandler& on_reply, bool* done) {
  google::protobuf::io::FileInputStream stream(descriptor);
  ModelReply reply;
  bool clean_end = false;
  while (google::protobuf::util::ParseDelimitedFromZeroCopyStream(&reply, &stream, &clean_end)) {
    if (reply.has_error()) {
      return absl::Status(static_cast<absl::StatusCode>(reply.error().code()),
                          reply.error().message());
    }
    *done = *done || reply.has_done();
    LASP_RETURN_IF_ERROR(on_reply(reply));
    reply.Clear();
  }
  return absl::OkStatus();
}

std::string EndText(int status) {
  return WIFSIGNALED(status) ? absl::StrCat("was ended by signal ", WTERMSIG(status), " (",
                                            strsignal(WTERMSIG(status)), ")")
                             : absl::StrCat("ended with ", WEXITSTATUS(status));
}

}  // namespace

absl::Status RunModelProcess(const std::string& program, const ModelRequest& request, bool quiet,
                             const ModelReplyHandler& on_reply) {
  LASP_ASSIGN_OR_RETURN(const UniqueFd input, RequestFile(request));
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return StartError(program, errno);
  }
  const UniqueFd replies(ends[0]);
  UniqueFd output(ends[1]);
  int error = 0;
  const pid_t pid = SpawnPlan().Start(program, input.get(), output.get(), quiet, &error);
  if (error != 0) {
    return StartError(program, error);
  }
  output = UniqueFd();
  bool done = false;
  absl::Status status;
  {
    const InterruptScope scope([pid] { kill(pid, SIGKILL); });
    if (Interrupted()) {  // before the scope
      kill(pid, SIGKILL);
    }
    status = TakeReplies(replies.get(), on_reply, &done);
    if (!status.ok()) {
      kill(pid, SIGKILL);
    }
  }
  int end = 0;
  while (waitpid(pid, &end, 0) < 0 && errno == EINTR) {
  }
  if (Interrupted()) {
    return absl::CancelledError("interrupted");
  }
  if (status.ok() && !done) {
    return absl::InternalError(absl::StrCat(program, " ", EndText(end)));
  }
  return status;
}

}  // namespace lasp::client
