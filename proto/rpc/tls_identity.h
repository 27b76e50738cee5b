// What one end of a TLS connection proves itself with, and whom it believes.
#pragma once

#include <array>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/credential_file.h"

namespace lasp {

// Paths of PEM files, and the flags that named them, for errors. Empty where there is none.
struct TlsFiles {
  std::string certificate;
  std::string key;
  std::string authority;
  const char* authority_flag = "tls_ca";

  bool empty() const { return certificate.empty() && key.empty() && authority.empty(); }

  std::array<FileStamp, 3> Stamps() const {
    return {StampOf(certificate), StampOf(key), StampOf(authority)};
  }
};

// Their contents.
struct TlsIdentity {
  std::string certificate;
  std::string key;
  std::string authority;
  // When the certificate ends; in the infinite future where there is none.
  absl::Time end = absl::InfiniteFuture();

  // Whether connections are to be encrypted at all.
  bool wanted() const { return !authority.empty() || !certificate.empty(); }

  bool operator==(const TlsIdentity&) const = default;
};

// Reads the files that are named. INVALID_ARGUMENT for what is no certificate or key, for a key of
// another certificate, and for a key that others may read; NOT_FOUND.
absl::StatusOr<TlsIdentity> LoadTlsIdentity(const TlsFiles& files);

}  // namespace lasp
