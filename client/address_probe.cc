#include "client/address_probe.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

struct HostPort {
  std::string host;
  std::string port;
};

// host:port or [v6]:port, as ReadServer gives it.
HostPort Split(const std::string& address) {
  const size_t colon = address.rfind(':');
  absl::string_view host = absl::string_view(address).substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) {
    absl::ConsumeSuffix(&host, "]");
  }
  return {std::string(host), address.substr(colon + 1)};
}

absl::Status TooLate(const std::string& address, const char* what) {
  return absl::DeadlineExceededError(absl::StrCat(address, ": ", what));
}

// A look-up that may be given up: glibc's own thread goes on with it, so what it works on must
// stay.
struct Lookup {
  HostPort address;
  addrinfo hints = {};
  gaicb request = {};

  explicit Lookup(HostPort host_port) : address(std::move(host_port)) {
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_ADDRCONFIG;
    // AI_ADDRCONFIG takes loopback for no network at all.
    if (address.host == "localhost") {
      hints.ai_flags = 0;
    }
    request.ar_name = address.host.c_str();
    request.ar_service = address.port.c_str();
    request.ar_request = &hints;
  }

  ~Lookup() {
    if (request.ar_result != nullptr) {
      freeaddrinfo(request.ar_result);
    }
  }
};

absl::StatusOr<std::unique_ptr<Lookup>> Resolve(const std::string& address, absl::Time deadline) {
  auto lookup = std::make_unique<Lookup>(Split(address));
  gaicb* requests[] = {&lookup->request};
  if (getaddrinfo_a(GAI_NOWAIT, requests, 1, nullptr) != 0) {
    return absl::ResourceExhaustedError("no thread for looking up a name");
  }
  int result = gai_error(&lookup->request);
  while (result == EAI_INPROGRESS && absl::Now() < deadline) {
    const timespec rest = absl::ToTimespec(deadline - absl::Now());
    (void)gai_suspend(requests, 1, &rest);
    result = gai_error(&lookup->request);
  }
  if (result == EAI_INPROGRESS) {
    if (gai_cancel(&lookup->request) == EAI_NOTCANCELED) {
      static auto* const abandoned = new std::vector<std::unique_ptr<Lookup>>();
      abandoned->push_back(std::move(lookup));
    }
    return TooLate(address, "looking up the host name takes too long");
  }
  if (result != 0) {
    return absl::NotFoundError(
        absl::StrCat("the host name '", lookup->address.host,
                     "' is not known: ", absl::AsciiStrToLower(gai_strerror(result))));
  }
  return lookup;
}

// Whether the descriptor is ready before the deadline.
bool WaitFor(int fd, decltype(pollfd::events) events, absl::Time deadline) {
  pollfd polled = {fd, events, 0};
  while (true) {
    const absl::Duration rest = deadline - absl::Now();
    if (rest <= absl::ZeroDuration()) {
      return false;
    }
    const int ready = poll(&polled, 1, static_cast<int>(absl::ToInt64Milliseconds(rest)) + 1);
    if (ready > 0) {
      return true;
    }
    if (ready < 0 && errno != EINTR) {
      return false;
    }
  }
}

absl::StatusOr<UniqueFd> ConnectOne(const std::string& address, const addrinfo& info,
                                    absl::Time deadline) {
  UniqueFd fd(
      socket(info.ai_family, info.ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, info.ai_protocol));
  int error = fd.get() < 0 ? errno : 0;
  if (error == 0 && connect(fd.get(), info.ai_addr, info.ai_addrlen) != 0) {
    error = errno;
  }
  if (error == EINPROGRESS) {
    if (!WaitFor(fd.get(), POLLOUT, deadline)) {
      return TooLate(address, "nothing answers there");
    }
    socklen_t size = sizeof(error);
    (void)getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  }
  if (error != 0) {
    return absl::UnavailableError(
        absl::StrCat(address, ": ", absl::AsciiStrToLower(std::strerror(error))));
  }
  return fd;
}

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Context = std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)>;
using Connection = std::unique_ptr<SSL, decltype(&SSL_free)>;

Bio Reader(const std::string& pem) {
  return {BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free};
}

Certificate NextCertificate(BIO* bio) {
  return {PEM_read_bio_X509(bio, nullptr, nullptr, nullptr), &X509_free};
}

// The identity's files have been read before: what is wrong with them has been said.
Context MakeContext(const TlsIdentity& identity) {
  Context context(SSL_CTX_new(TLS_client_method()), &SSL_CTX_free);
  const Bio authorities = Reader(identity.authority);
  while (const Certificate authority = NextCertificate(authorities.get())) {
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), authority.get());
  }
  if (!identity.certificate.empty()) {
    const Bio own = Reader(identity.certificate);
    const Certificate certificate = NextCertificate(own.get());
    SSL_CTX_use_certificate(context.get(), certificate.get());
    const Bio secret = Reader(identity.key);
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
        PEM_read_bio_PrivateKey(secret.get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
    SSL_CTX_use_PrivateKey(context.get(), key.get());
  }
  ERR_clear_error();
  return context;
}

// The names of the certificate are checked with the rest, yet a wrong one ends nothing: what is
// wrong is to be told.
Connection MakeConnection(SSL_CTX* context, int fd, const std::string& host) {
  constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  Connection connection(SSL_new(context), &SSL_free);
  SSL_set_verify(connection.get(), SSL_VERIFY_NONE, nullptr);
  SSL_set_alpn_protos(connection.get(), kHttp2, sizeof(kHttp2));
  unsigned char binary[sizeof(in6_addr)];
  if (inet_pton(AF_INET, host.c_str(), binary) == 1 ||
      inet_pton(AF_INET6, host.c_str(), binary) == 1) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(connection.get()), host.c_str());
  } else {
    SSL_set1_host(connection.get(), host.c_str());
    SSL_set_tlsext_host_name(connection.get(), host.c_str());
  }
  SSL_set_fd(connection.get(), fd);
  return connection;
}

std::string TlsError() {
  const auto code = ERR_get_error();
  ERR_clear_error();
  const char* const reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return reason == nullptr ? "the other end hung up" : reason;
}

absl::Status Handshake(SSL* connection, int fd, const std::string& address, absl::Time deadline) {
  while (true) {
    const int result = SSL_connect(connection);
    if (result == 1) {
      return absl::OkStatus();
    }
    const int error = SSL_get_error(connection, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
      return absl::UnavailableError(absl::StrCat(address, ": no TLS: ", TlsError()));
    }
    if (!WaitFor(fd, error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline)) {
      return TooLate(address, "the TLS handshake takes too long");
    }
  }
}

}  // namespace

absl::StatusOr<UniqueFd> ConnectTo(const std::string& address, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  LASP_ASSIGN_OR_RETURN(const std::unique_ptr<Lookup> lookup, Resolve(address, deadline));
  absl::StatusOr<UniqueFd> connection = absl::UnavailableError("no address");
  for (const addrinfo* info = lookup->request.ar_result; info != nullptr; info = info->ai_next) {
    connection = ConnectOne(address, *info, deadline);
    if (connection.ok()) {
      break;
    }
  }
  return connection;
}

absl::StatusOr<TlsProbe> ProbeTls(const UniqueFd& connection, const std::string& address,
                                  const TlsIdentity& identity, absl::Duration timeout) {
  // A server that hangs up in the middle is an answer, not a signal.
  (void)signal(SIGPIPE, SIG_IGN);
  const Context context = MakeContext(identity);
  const Connection tls = MakeConnection(context.get(), connection.get(), Split(address).host);
  LASP_RETURN_IF_ERROR(Handshake(tls.get(), connection.get(), address, absl::Now() + timeout));
  const Certificate shown(SSL_get1_peer_certificate(tls.get()), &X509_free);
  TlsProbe probe;
  tm end = {};
  if (shown != nullptr && ASN1_TIME_to_tm(X509_get0_notAfter(shown.get()), &end) == 1) {
    probe.end = absl::FromTM(end, absl::UTCTimeZone());
  }
  if (const int64_t verdict = SSL_get_verify_result(tls.get()); verdict != X509_V_OK) {
    probe.problem = absl::AsciiStrToLower(X509_verify_cert_error_string(verdict));
  }
  return probe;
}

}  // namespace lasp::client
