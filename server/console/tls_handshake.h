// The certificate of the console's TLS, which may change while it listens.
#pragma once

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>

#include "server/credentials.h"

namespace lasp::server {

// The versions and ciphers to offer: TLS 1.2 and 1.3, as GnuTLS orders them.
inline constexpr char kTlsPriorities[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";

// Before the handshake of `session`: it will use what `credentials`, which outlives it, has then.
void UseCredentials(gnutls_session_t session, const Credentials* credentials);

// A gnutls_certificate_retrieve_function3 that does so.
int RetrieveCertificate(gnutls_session_t session, const gnutls_cert_retr_st* info,
                        gnutls_pcert_st** certificates, unsigned* certificate_count,
                        gnutls_ocsp_data_st** ocsp, unsigned* ocsp_count, gnutls_privkey_t* key,
                        unsigned* flags);

}  // namespace lasp::server
