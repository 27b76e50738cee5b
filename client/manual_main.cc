// lasp-manual: writes what is installed beside the programs and made from their command lines: the
// manual pages, and the completion scripts of lasp. Run by the build; not installed itself.
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/command_tree.h"
#include "client/completion.h"
#include "client/manual_page.h"
#include "proto/rpc/status_macros.h"
#include "proto/rpc/version.h"

namespace lasp::client {
namespace {

absl::Status Write(const std::string& path, const std::string& text) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "we"), &std::fclose);
  if (file == nullptr || std::fwrite(text.data(), 1, text.size(), file.get()) != text.size() ||
      std::fflush(file.get()) != 0) {
    return absl::UnavailableError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

// What `path --help` prints; `path` is the build's own.
absl::StatusOr<std::string> HelpOf(const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(
      popen(absl::StrCat("'", path, "' --help").c_str(), "re"), &pclose);
  if (pipe == nullptr) {
    return absl::UnavailableError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  std::string text;
  char buffer[4096];
  for (size_t count = 0; (count = std::fread(buffer, 1, sizeof(buffer), pipe.get())) > 0;) {
    text.append(buffer, count);
  }
  return text;
}

absl::Status WriteAll(const std::string& folder, const std::string& date,
                      const std::vector<std::string>& daemons) {
  const ManualEdition edition{.version = lasp::Version(), .date = date};
  for (const char* part : {"", "/man1", "/man8", "/completions"}) {
    if (mkdir((folder + part).c_str(), 0755) != 0 && errno != EEXIST) {
      return absl::UnavailableError(absl::StrCat(folder, part, ": ", std::strerror(errno)));
    }
  }
  LASP_RETURN_IF_ERROR(Write(folder + "/man1/lasp.1", ProgramPage(edition)));
  for (const CommandSpec& command : Commands()) {
    LASP_RETURN_IF_ERROR(Write(absl::StrCat(folder, "/man1/lasp-", command.name, ".1"),
                               CommandPage(command, edition)));
  }
  for (const std::string& path : daemons) {
    const std::string program = path.substr(path.rfind('/') + 1);
    LASP_ASSIGN_OR_RETURN(const std::string help, HelpOf(path));
    LASP_ASSIGN_OR_RETURN(const std::string page, DaemonPage(program, help, edition));
    LASP_RETURN_IF_ERROR(Write(absl::StrCat(folder, "/man8/", program, ".8"), page));
  }
  for (const auto& [shell, name] :
       {std::pair{"bash", "lasp"}, std::pair{"zsh", "_lasp"}, std::pair{"fish", "lasp.fish"}}) {
    LASP_ASSIGN_OR_RETURN(const std::string script, CompletionScript(shell));
    LASP_RETURN_IF_ERROR(Write(absl::StrCat(folder, "/completions/", name), script));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace lasp::client

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: lasp-manual FOLDER DATE [DAEMON...]\n");
    return 2;
  }
  const absl::Status status =
      lasp::client::WriteAll(argv[1], argv[2], std::vector<std::string>(argv + 3, argv + argc));
  if (!status.ok()) {
    std::fprintf(stderr, "lasp-manual: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}
