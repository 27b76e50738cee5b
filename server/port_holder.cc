#include "server/port_holder.h"

#include <dirent.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <memory>
#include <set>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace lasp::server {
namespace {

// The state of a listening socket in /proc/net/tcp.
constexpr char kListen[] = "0A";

// "socket:[INODE]" of every socket that listens on `port`.
std::set<std::string> ListeningSockets(int port) {
  std::set<std::string> sockets;
  const std::string suffix = absl::StrCat(":", absl::Hex(port, absl::kZeroPad4));
  for (const char* path : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(path);
    std::string line;
    while (std::getline(file, line)) {
      // sl local_address rem_address st queues timer retransmits uid timeout inode …
      const std::vector<std::string> columns = absl::StrSplit(line, ' ', absl::SkipEmpty());
      if (columns.size() > 9 && columns[3] == kListen &&
          absl::EndsWithIgnoreCase(columns[1], suffix)) {
        sockets.insert(absl::StrCat("socket:[", columns[9], "]"));
      }
    }
  }
  return sockets;
}

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};

using Directory = std::unique_ptr<DIR, CloseDirectory>;

bool HoldsSocket(const std::string& process, const std::set<std::string>& sockets) {
  const std::string folder = absl::StrCat(process, "/fd");
  const Directory directory(opendir(folder.c_str()));
  if (directory == nullptr) {
    return false;
  }
  while (const dirent* entry = readdir(directory.get())) {  // NOLINT(concurrency-mt-unsafe)
    std::array<char, 128> target{};
    const ssize_t size =
        readlink(absl::StrCat(folder, "/", entry->d_name).c_str(), target.data(), target.size());
    if (size > 0 && sockets.count(std::string(target.data(), static_cast<size_t>(size))) > 0) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::string DescribePortHolder(int port) {
  const std::set<std::string> sockets = ListeningSockets(port);
  if (sockets.empty()) {
    return "";
  }
  const Directory directory(opendir("/proc"));
  while (directory != nullptr) {
    const dirent* entry = readdir(directory.get());  // NOLINT(concurrency-mt-unsafe)
    if (entry == nullptr) {
      break;
    }
    int pid = 0;
    const std::string process = absl::StrCat("/proc/", entry->d_name);
    if (absl::SimpleAtoi(entry->d_name, &pid) && HoldsSocket(process, sockets)) {
      std::ifstream file(absl::StrCat(process, "/comm"));
      std::string name;
      std::getline(file, name);
      return absl::StrCat("pid ", pid, " (", name, ")");
    }
  }
  return "a process of another user";
}

}  // namespace lasp::server
