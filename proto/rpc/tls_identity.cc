#include "proto/rpc/tls_identity.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <memory>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"

namespace lasp {
namespace {

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};

using BioPtr = std::unique_ptr<BIO, Deleter<BIO_free>>;
using CertificatePtr = std::unique_ptr<X509, Deleter<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;

BioPtr Reader(const std::string& text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// Of several, the first: the one that stands for its owner.
absl::StatusOr<CertificatePtr> ParseCertificate(absl::string_view flag, const std::string& path,
                                                const std::string& text) {
  CertificatePtr certificate(PEM_read_bio_X509(Reader(text).get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--", flag, ": ", path, " holds no certificate in PEM"));
  }
  return certificate;
}

// A key that is encrypted is none: there is nobody to ask for its password.
int NoPassword(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*context*/) { return -1; }

}  // namespace

absl::StatusOr<TlsIdentity> LoadTlsIdentity(const TlsFiles& files) {
  TlsIdentity identity;
  if (!files.authority.empty()) {
    LASP_ASSIGN_OR_RETURN(identity.authority,
                          ReadCredential(files.authority_flag, files.authority));
    LASP_RETURN_IF_ERROR(
        ParseCertificate(files.authority_flag, files.authority, identity.authority).status());
  }
  if (files.certificate.empty()) {
    return identity;
  }
  LASP_ASSIGN_OR_RETURN(identity.certificate, ReadCredential("tls_cert", files.certificate));
  LASP_ASSIGN_OR_RETURN(identity.key, ReadSecret("tls_key", files.key));
  LASP_ASSIGN_OR_RETURN(const CertificatePtr certificate,
                        ParseCertificate("tls_cert", files.certificate, identity.certificate));
  const KeyPtr key(
      PEM_read_bio_PrivateKey(Reader(identity.key).get(), nullptr, NoPassword, nullptr));
  ERR_clear_error();
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls_key: ", files.key, " holds no private key in PEM without a password"));
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(absl::StrCat(
        "--tls_key: ", files.key, " is not the key of the certificate ", files.certificate));
  }
  std::tm end = {};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &end) == 1) {
    identity.end = absl::FromTM(end, absl::UTCTimeZone());
  }
  return identity;
}

}  // namespace lasp
