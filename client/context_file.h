// Contexts: coordinators with their credentials by name, kept in ~/.config/lasp/config.yaml.
//
//   current: prod
//   contexts:
//     prod: {server: lasp.example.org:7070, tls_ca: /home/ann/ca.crt, token_file: /home/ann/token}
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/document.h"

namespace lasp::client {

// Empty where it says nothing.
struct Context {
  std::string server;
  std::string project;
  std::string tls_ca;
  std::string tls_cert;
  std::string tls_key;
  std::string token_file;
  std::string token;
};

struct ContextFile {
  // Empty for none.
  std::string current;
  std::map<std::string, Context> contexts;

  // $XDG_CONFIG_HOME/lasp/config.yaml, else in ~/.config; empty where neither variable is set.
  static std::string DefaultPath();

  // Nothing where there is no such file. INVALID_ARGUMENT naming the line for what is no file of
  // contexts, and for one on which others than its owner have rights.
  static absl::StatusOr<ContextFile> Load(const std::string& path);

  // Replaces the file, with rights for its owner alone.
  absl::Status Save(const std::string& path) const;

  // NOT_FOUND that names those there are.
  absl::StatusOr<Context> Find(const std::string& name) const;

  // As in the file; with `hide` the tokens are not shown.
  Document ToDocument(bool hide) const;
};

}  // namespace lasp::client
