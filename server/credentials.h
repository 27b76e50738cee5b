// The coordinator's certificate, whom it believes, and its users' tokens: read at start, and again
// whenever a file changes.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/tls_identity.h"
#include "server/token_table.h"

namespace lasp::server {

struct CredentialOptions {
  // All three, or none.
  TlsFiles tls = {.certificate = "", .key = "", .authority = "", .authority_flag = "tls_client_ca"};
  // Empty for none: everybody may do everything.
  std::string token_file = {};
  // Between two looks at the files.
  absl::Duration reload_interval = absl::Seconds(1);
};

// Thread-safe. A thread of its own looks at the files; what it cannot use it logs and counts, once,
// and what was read before stays until the files can be used. An empty token file ends all tokens
// at the second look that finds it so.
class Credentials {
 public:
  // `on_reload` is told whether a changed file could be used, from the own thread. Errors as
  // LoadTlsIdentity and TokenTable::Load.
  static absl::StatusOr<std::unique_ptr<Credentials>> Load(
      const CredentialOptions& options, std::function<void(bool used)> on_reload);
  ~Credentials();
  Credentials(const Credentials&) = delete;
  Credentials& operator=(const Credentials&) = delete;

  bool has_tls() const { return !options_.tls.empty(); }

  bool has_tokens() const { return !options_.token_file.empty(); }

  // Null without TLS; the same object until a file changes.
  std::shared_ptr<const TlsIdentity> tls() const;
  // Null without tokens.
  std::shared_ptr<const TokenTable> tokens() const;

 private:
  Credentials(const CredentialOptions& options, std::function<void(bool)> on_reload);

  void Watch();
  void ReloadTls();
  void ReloadTokens();
  void Tell(absl::string_view what, const absl::Status& status);

  const CredentialOptions options_;
  const std::function<void(bool)> on_reload_;
  // What the files were when last read, and what came of it; the thread's own.
  std::array<FileStamp, 3> tls_stamps_;
  absl::Status tls_status_;
  FileStamp token_stamp_;
  absl::Status token_status_;
  // Of a token file without contents, at the last look that found one.
  std::optional<FileStamp> empty_stamp_;
  mutable Mutex mutex_;
  CondVar stop_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::shared_ptr<const TlsIdentity> tls_ GUARDED_BY(mutex_);
  std::shared_ptr<const TokenTable> tokens_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace lasp::server
