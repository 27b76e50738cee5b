#include "server/console/tls_handshake.h"

#include <memory>
#include <string>

namespace lasp::server {
namespace {

// A certificate and those that lead to its authority.
constexpr unsigned kMaxChain = 8;

gnutls_datum_t View(const std::string& text) {
  // GnuTLS takes input as bytes that are not const, and does not change them.
  return {.data = reinterpret_cast<unsigned char*>(const_cast<char*>(text.data())),
          .size = static_cast<unsigned>(text.size())};
}

}  // namespace

void UseCredentials(gnutls_session_t session, const Credentials* credentials) {
  gnutls_session_set_ptr(session, const_cast<Credentials*>(credentials));
}

int RetrieveCertificate(gnutls_session_t session, const gnutls_cert_retr_st* /*info*/,
                        gnutls_pcert_st** certificates, unsigned* certificate_count,
                        gnutls_ocsp_data_st** ocsp, unsigned* ocsp_count, gnutls_privkey_t* key,
                        unsigned* flags) {
  const auto* credentials = static_cast<const Credentials*>(gnutls_session_get_ptr(session));
  const std::shared_ptr<const TlsIdentity> identity = credentials->tls();
  auto* chain = static_cast<gnutls_pcert_st*>(gnutls_calloc(kMaxChain, sizeof(gnutls_pcert_st)));
  if (chain == nullptr) {
    return -1;
  }
  unsigned count = kMaxChain;
  const gnutls_datum_t certificate_text = View(identity->certificate);
  if (gnutls_pcert_list_import_x509_raw(chain, &count, &certificate_text, GNUTLS_X509_FMT_PEM, 0) <
      0) {
    gnutls_free(chain);
    return -1;
  }
  const gnutls_datum_t key_text = View(identity->key);
  if (gnutls_privkey_init(key) < 0) {
    *key = nullptr;
  } else if (gnutls_privkey_import_x509_raw(*key, &key_text, GNUTLS_X509_FMT_PEM, nullptr, 0) < 0) {
    gnutls_privkey_deinit(*key);
    *key = nullptr;
  }
  if (*key == nullptr) {
    for (unsigned i = 0; i < count; ++i) {
      gnutls_pcert_deinit(&chain[i]);
    }
    gnutls_free(chain);
    return -1;
  }
  *certificates = chain;
  *certificate_count = count;
  *ocsp = nullptr;
  *ocsp_count = 0;
  // GnuTLS frees all of it after the handshake.
  *flags |= GNUTLS_CERT_RETR_DEINIT_ALL;
  return 0;
}

}  // namespace lasp::server
