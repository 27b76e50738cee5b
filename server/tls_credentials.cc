#include "server/tls_credentials.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include <string>

#include "proto/rpc/mutex.h"

namespace lasp::server {
namespace {

// gRPC's own watcher of files forgets the certificates it had when the new ones do not read, and
// checks neither rights nor that a key belongs to its certificate; so it gets them from us.
class Reloading final : public grpc::ServerCredentials {
 public:
  Reloading(const Credentials* source, bool agents) : source_(source) {
    credentials_ = grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            agents ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                   : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
            &Reloading::Fetch, this));
  }

  ~Reloading() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(
      const std::shared_ptr<grpc::AuthMetadataProcessor>& /*processor*/) override {}

 private:
  // Called at each handshake, by gRPC's threads.
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* self, grpc_ssl_server_certificate_config** config) {
    return static_cast<Reloading*>(self)->Fetch(config);
  }

  grpc_ssl_certificate_config_reload_status Fetch(grpc_ssl_server_certificate_config** config) {
    std::shared_ptr<const TlsIdentity> identity = source_->tls();
    MutexLock lock(&mutex_);
    if (identity == used_) {
      return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    }
    const grpc_ssl_pem_key_cert_pair pair = {.private_key = identity->key.c_str(),
                                             .cert_chain = identity->certificate.c_str()};
    // gRPC wants an authority here also where no client is asked for a certificate.
    *config = grpc_ssl_server_certificate_config_create(identity->authority.c_str(), &pair, 1);
    used_ = std::move(identity);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  const Credentials* const source_;
  grpc_server_credentials* credentials_ = nullptr;
  Mutex mutex_;
  std::shared_ptr<const TlsIdentity> used_ GUARDED_BY(mutex_);
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> TlsServerCredentials(const Credentials* credentials,
                                                              bool agents) {
  return std::make_shared<Reloading>(credentials, agents);
}

}  // namespace lasp::server
