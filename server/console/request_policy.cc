#include "server/console/request_policy.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"

namespace lasp::server {
namespace {

// Of a token with its scheme, by far.
constexpr size_t kMaxAuthorization = 1'024;

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};

struct FreeCertificate {
  void operator()(X509* certificate) const { X509_free(certificate); }
};

bool IsPrintable(absl::string_view text) {
  for (const char c : text) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) {
      return false;
    }
  }
  return true;
}

absl::Status Malformed(absl::string_view what) {
  return ErrorWithReason(absl::StatusCode::kInvalidArgument, what, "MALFORMED_REQUEST");
}

// `host` without its port, and an IPv6 address without its brackets.
absl::string_view WithoutPort(absl::string_view host) {
  if (absl::ConsumePrefix(&host, "[")) {
    return host.substr(0, host.find(']'));
  }
  return host.substr(0, host.find(':'));
}

bool IsIpAddress(const std::string& host) {
  in6_addr address{};
  return inet_pton(AF_INET, host.c_str(), &address) == 1 ||
         inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

bool IsInCertificate(const std::string& host, const std::string& pem) {
  const std::unique_ptr<BIO, FreeBio> text(
      BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const std::unique_ptr<X509, FreeCertificate> certificate(
      PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr));
  return certificate != nullptr &&
         X509_check_host(certificate.get(), host.data(), host.size(), 0, nullptr) == 1;
}

absl::Status CheckHost(const HttpRequest& request, const std::string& own_host,
                       const Credentials& credentials) {
  const std::vector<absl::string_view> sent = request.Header("host");
  if (sent.size() != 1 || sent[0].empty() || !IsPrintable(sent[0])) {
    return Malformed("the request has no Host, or more than one");
  }
  const std::string host = absl::AsciiStrToLower(WithoutPort(sent[0]));
  if (host == "localhost" || IsIpAddress(host) ||
      host == absl::AsciiStrToLower(WithoutPort(own_host)) ||
      (credentials.has_tls() && IsInCertificate(host, credentials.tls()->certificate))) {
    return absl::OkStatus();
  }
  return ErrorWithReason(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("'", host.substr(0, 100), "' is no name of this console: use localhost, an IP ",
                   "address or a name in the coordinator's certificate"),
      "UNKNOWN_HOST");
}

}  // namespace

absl::Status CheckRequest(const HttpRequest& request, const std::string& own_host,
                          const Credentials& credentials) {
  LASP_RETURN_IF_ERROR(CheckHost(request, own_host, credentials));
  // gRPC takes no others.
  for (const absl::string_view value : request.Header("authorization")) {
    if (value.size() > kMaxAuthorization || !IsPrintable(value)) {
      return Malformed("the Authorization is no token");
    }
  }
  if (absl::StartsWith(request.path, "/api/")) {
    for (const absl::string_view site : request.Header("sec-fetch-site")) {
      if (site != "same-origin" && site != "none") {
        return ErrorWithReason(absl::StatusCode::kPermissionDenied,
                               "the request comes from another site's page", "CROSS_SITE");
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace lasp::server
