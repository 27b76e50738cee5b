#include "server/credentials.h"

#include <utility>

#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"

namespace lasp::server {

absl::StatusOr<std::unique_ptr<Credentials>> Credentials::Load(
    const CredentialOptions& options, std::function<void(bool)> on_reload) {
  std::unique_ptr<Credentials> credentials(new Credentials(options, std::move(on_reload)));
  MutexLock lock(&credentials->mutex_);
  // The stamps first: what changes while it is read is read again.
  if (credentials->has_tls()) {
    credentials->tls_stamps_ = options.tls.Stamps();
    LASP_ASSIGN_OR_RETURN(TlsIdentity identity, LoadTlsIdentity(options.tls));
    credentials->tls_ = std::make_shared<const TlsIdentity>(std::move(identity));
  }
  if (credentials->has_tokens()) {
    credentials->token_stamp_ = StampOf(options.token_file);
    LASP_ASSIGN_OR_RETURN(TokenTable table, TokenTable::Load(options.token_file));
    credentials->tokens_ = std::make_shared<const TokenTable>(std::move(table));
  }
  if (credentials->has_tls() || credentials->has_tokens()) {
    credentials->thread_ = std::thread([self = credentials.get()] { self->Watch(); });
  }
  return credentials;
}

Credentials::Credentials(const CredentialOptions& options, std::function<void(bool)> on_reload)
    : options_(options), on_reload_(std::move(on_reload)) {}

Credentials::~Credentials() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    stop_.Notify();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

std::shared_ptr<const TlsIdentity> Credentials::tls() const {
  MutexLock lock(&mutex_);
  return tls_;
}

std::shared_ptr<const TokenTable> Credentials::tokens() const {
  MutexLock lock(&mutex_);
  return tokens_;
}

void Credentials::Watch() {
  while (true) {
    const absl::Duration until = SystemClock().Monotonic() + options_.reload_interval;
    {
      MutexLock lock(&mutex_);
      while (!stopping_ && SystemClock().Monotonic() < until) {
        stop_.WaitWithTimeout(&mutex_, until - SystemClock().Monotonic());
      }
      if (stopping_) {
        return;
      }
    }
    if (has_tls()) {
      ReloadTls();
    }
    if (has_tokens()) {
      ReloadTokens();
    }
  }
}

// What could not be used is read again at each look: what was in the way may pass, as a want of
// descriptors does, and leaves no trace in the stamp.
void Credentials::ReloadTls() {
  const std::array<FileStamp, 3> stamps = options_.tls.Stamps();
  if (stamps == tls_stamps_ && tls_status_.ok()) {
    return;
  }
  auto identity = LoadTlsIdentity(options_.tls);
  if (options_.tls.Stamps() != stamps) {
    return;  // Changed while it was read: at the next look, whole.
  }
  const absl::Status status = identity.status();
  const bool news = stamps != tls_stamps_ || status != tls_status_;
  tls_stamps_ = stamps;
  tls_status_ = status;
  if (status.ok()) {
    auto shared = std::make_shared<const TlsIdentity>(*std::move(identity));
    MutexLock lock(&mutex_);
    tls_ = std::move(shared);
  }
  if (news) {
    Tell("certificates", status);
  }
}

void Credentials::ReloadTokens() {
  const FileStamp stamp = StampOf(options_.token_file);
  if (stamp == token_stamp_ && token_status_.ok()) {
    return;
  }
  // A file is empty, or not there, for a moment where it is written in its place. If that is meant,
  // and nobody is to have a token any more, it is so at the next look.
  if (stamp.size == 0 && std::exchange(empty_stamp_, stamp) != stamp) {
    return;
  }
  auto table = TokenTable::Load(options_.token_file);
  if (StampOf(options_.token_file) != stamp) {
    return;
  }
  const absl::Status status = table.status();
  const bool news = stamp != token_stamp_ || status != token_status_;
  token_stamp_ = stamp;
  token_status_ = status;
  if (status.ok()) {
    auto shared = std::make_shared<const TokenTable>(*std::move(table));
    MutexLock lock(&mutex_);
    tokens_ = std::move(shared);
  }
  if (news) {
    Tell("tokens", status);
  }
}

void Credentials::Tell(absl::string_view what, const absl::Status& status) {
  if (status.ok()) {
    LASP_LOG(kInfo, absl::StrCat("new ", what, " are in use"));
  } else {
    LASP_LOG(kError, absl::StrCat("changed ", what, " are of no use; the ones before stay"),
             {{"error", status.message()}});
  }
  on_reload_(status.ok());
}

}  // namespace lasp::server
