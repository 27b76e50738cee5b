#include "client/context_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/nearest_name.h"
#include "client/utf8.h"
#include "client/yaml_document.h"
#include "proto/rpc/credential_file.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

constexpr char kHidden[] = "(hidden)";
// YAML's keys have 1,024 characters, quotes and escapes included; longer ones are written, and then
// not read.
constexpr size_t kMostOfAName = 200;

// The fields of a context, in the order of the file.
constexpr std::pair<const char*, std::string Context::*> kFields[] = {
    {"server", &Context::server},   {"project", &Context::project},
    {"tls_ca", &Context::tls_ca},   {"tls_cert", &Context::tls_cert},
    {"tls_key", &Context::tls_key}, {"token_file", &Context::token_file},
    {"token", &Context::token},
};

absl::Status WrongAt(int line, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", problem));
}

absl::StatusOr<Context> ReadContext(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kMap && node.kind != YamlNode::Kind::kNull) {
    return WrongAt(node.line, absl::StrCat("context ", node.key, " is no map"));
  }
  Context context;
  for (const YamlNode& item : node.items) {
    std::string Context::* place = nullptr;
    for (const auto& [name, field] : kFields) {
      place = item.key == name ? field : place;
    }
    if (place == nullptr || item.kind != YamlNode::Kind::kScalar) {
      // What it holds may be a secret.
      return WrongAt(item.key_line, absl::StrCat("'", item.key, "' is no setting of a context"));
    }
    context.*place = item.text;
  }
  return context;
}

absl::StatusOr<ContextFile> ReadFile(const YamlNode& root) {
  ContextFile file;
  if (root.kind == YamlNode::Kind::kNull) {
    return file;
  }
  for (const YamlNode& item : root.items) {
    if (item.key == "current" && item.kind == YamlNode::Kind::kScalar) {
      file.current = item.text;
    } else if (item.key == "contexts" && item.kind != YamlNode::Kind::kScalar) {
      for (const YamlNode& context : item.items) {
        if (context.key.size() > kMostOfAName) {
          return WrongAt(context.key_line,
                         absl::StrCat("a context's name has at most ", kMostOfAName, " bytes"));
        }
        LASP_ASSIGN_OR_RETURN(file.contexts[context.key], ReadContext(context));
      }
    } else {
      return WrongAt(item.line, "expected current: NAME and contexts: {NAME: {...}}");
    }
  }
  return file;
}

// What YAML allows. Its writer changes other bytes: a name would be another once it is saved.
bool IsText(const std::string& text) {
  return IsValidUtf8(text) && std::none_of(text.begin(), text.end(), [](char c) {
           return (c >= 0 && c < ' ' && c != '\t' && c != '\n' && c != '\r') || c == '\x7f';
         });
}

absl::Status SystemError(absl::string_view what, const std::string& path) {
  const int error = errno;
  return absl::FailedPreconditionError(absl::StrCat(
      "cannot ", what, " ", path, ": ", std::strerror(error)));  // NOLINT(concurrency-mt-unsafe)
}

absl::Status MakeFolder(const std::string& path) {
  if (mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) {
    return absl::OkStatus();
  }
  return SystemError("make the folder", path);
}

absl::Status WriteWhole(const std::string& path, const std::string& text) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) {
    return SystemError("write", path);
  }
  const bool written = write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                       fsync(file) == 0;
  const absl::Status status = written ? absl::OkStatus() : SystemError("write", path);
  close(file);
  return status;
}

}  // namespace

// Environment variables are read before the first thread is made.
std::string ContextFile::DefaultPath() {
  const char* const folder = std::getenv("XDG_CONFIG_HOME");  // NOLINT(concurrency-mt-unsafe)
  if (folder != nullptr && *folder == '/') {
    return absl::StrCat(folder, "/lasp/config.yaml");
  }
  const char* const home = std::getenv("HOME");  // NOLINT(concurrency-mt-unsafe)
  return home == nullptr || *home == '\0' ? "" : absl::StrCat(home, "/.config/lasp/config.yaml");
}

absl::StatusOr<ContextFile> ContextFile::Load(const std::string& path) {
  auto text = path.empty() ? absl::NotFoundError("") : ReadSecret("context", path);
  if (absl::IsNotFound(text.status())) {
    return ContextFile{};
  }
  LASP_RETURN_IF_ERROR(text.status());
  if (!IsText(*text)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is not text in UTF-8 without control characters: write it as such"));
  }
  auto root = ParseYaml(*text);
  auto file = root.ok() ? ReadFile(*root) : absl::StatusOr<ContextFile>(root.status());
  if (!file.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", file.status().message()));
  }
  return file;
}

absl::Status ContextFile::Save(const std::string& path) const {
  if (path.empty()) {
    return absl::FailedPreconditionError(
        "there is no place for contexts: set HOME or XDG_CONFIG_HOME");
  }
  const std::string folder = path.substr(0, path.rfind('/'));
  LASP_RETURN_IF_ERROR(MakeFolder(folder.substr(0, folder.rfind('/'))));
  LASP_RETURN_IF_ERROR(MakeFolder(folder));
  const std::string fresh = absl::StrCat(path, ".", getpid());
  absl::Status status = WriteWhole(fresh, YamlText(ToDocument(/*hide=*/false)));
  if (status.ok() && rename(fresh.c_str(), path.c_str()) != 0) {
    status = SystemError("replace", path);
  }
  if (!status.ok()) {
    unlink(fresh.c_str());
  }
  return status;
}

absl::StatusOr<Context> ContextFile::Find(const std::string& name) const {
  const auto found = contexts.find(name);
  if (found != contexts.end()) {
    return found->second;
  }
  std::vector<std::string> names;
  names.reserve(contexts.size());
  for (const auto& [known, context] : contexts) {
    names.push_back(known);
  }
  return absl::NotFoundError(
      absl::StrCat("there is no context '", name, "'", Suggestion(name, names)));
}

Document ContextFile::ToDocument(bool hide) const {
  Document document = Document::object();
  document["current"] = current;
  document["contexts"] = Document::object();
  for (const auto& [name, context] : contexts) {
    Document& place = document["contexts"][name] = Document::object();
    for (const auto& [field, member] : kFields) {
      if (!(context.*member).empty()) {
        place[field] = hide && member == &Context::token ? kHidden : context.*member;
      }
    }
  }
  return document;
}

}  // namespace lasp::client
