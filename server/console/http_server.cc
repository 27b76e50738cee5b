#include "server/console/http_server.h"

#include <microhttpd.h>
#include <netdb.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/status_macros.h"
#include "server/console/slow_client_guard.h"
#include "server/console/tls_handshake.h"
#include "server/listen_address.h"

namespace lasp::server {
namespace {

// One request: the library's thread and the one that answers meet here.
class Exchange {
 public:
  explicit Exchange(MHD_Connection* connection) : connection_(connection) {}

  // Of the library's thread: whether the handler has been asked.
  bool asked = false;

  void Answer(HttpResponse response) {
    MutexLock lock(&mutex_);
    response_ = std::move(response);
    if (suspended_) {
      suspended_ = false;
      MHD_resume_connection(connection_);
    }
  }

  // The answer; without one yet the library asks again once there is.
  std::optional<HttpResponse> Take() {
    MutexLock lock(&mutex_);
    if (!response_.has_value()) {
      MHD_suspend_connection(connection_);
      suspended_ = true;
    }
    return std::exchange(response_, std::nullopt);
  }

 private:
  MHD_Connection* const connection_;
  Mutex mutex_;
  std::optional<HttpResponse> response_ GUARDED_BY(mutex_);
  bool suspended_ GUARDED_BY(mutex_) = false;
};

MHD_Result Append(void* to, MHD_ValueKind /*kind*/, const char* name, size_t name_size,
                  const char* value, size_t value_size) {
  static_cast<NamedValues*>(to)->emplace_back(
      std::string(name, name_size),
      value == nullptr ? std::string() : std::string(value, value_size));
  return MHD_YES;
}

// Texts are C strings here: one with an escaped NUL stays escaped, and so is not what it begins
// with.
size_t Unescape(void* /*none*/, MHD_Connection* /*connection*/, char* text) {
  return std::strstr(text, "%00") == nullptr ? MHD_http_unescape(text) : std::strlen(text);
}

HttpRequest ReadRequest(MHD_Connection* connection, const char* path) {
  HttpRequest request;
  request.path = path;
  MHD_get_connection_values_n(connection, MHD_HEADER_KIND, &Append, &request.headers);
  MHD_get_connection_values_n(connection, MHD_GET_ARGUMENT_KIND, &Append, &request.parameters);
  return request;
}

bool HasBody(MHD_Connection* connection) {
  const char* length =
      MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
  return (length != nullptr && std::strcmp(length, "0") != 0) ||
         MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
                                     MHD_HTTP_HEADER_TRANSFER_ENCODING) != nullptr;
}

MHD_Result Send(MHD_Connection* connection, const HttpResponse& response) {
  // The library copies, and does not change, what it is given as not const.
  MHD_Response* message = MHD_create_response_from_buffer(
      response.body.size(), const_cast<char*>(response.body.data()), MHD_RESPMEM_MUST_COPY);
  if (message == nullptr) {
    return MHD_NO;
  }
  if (!response.content_type.empty()) {
    MHD_add_response_header(message, MHD_HTTP_HEADER_CONTENT_TYPE, response.content_type.c_str());
  }
  for (const auto& [name, value] : response.headers) {
    MHD_add_response_header(message, name.c_str(), value.c_str());
  }
  const MHD_Result queued =
      MHD_queue_response(connection, static_cast<unsigned>(response.code), message);
  MHD_destroy_response(message);
  return queued;
}

int SocketOf(MHD_Connection* connection) {
  const MHD_ConnectionInfo* info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  return info == nullptr ? -1 : info->connect_fd;
}

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

absl::StatusOr<Addresses> Resolve(absl::string_view flag, const ListenAddress& listen) {
  std::string host = listen.host;
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), absl::StrCat(listen.port).c_str(), &hints, &found);
  if (error != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--", flag, ": '", listen.ToString(), "': ", gai_strerror(error)));
  }
  return Addresses(found);
}

}  // namespace

struct HttpServer::Parts {
  Parts(const HttpServerOptions& options, HttpHandler* asked)
      : handler(asked),
        credentials(options.credentials),
        guard(options.clock, options.request_limit, [asked] { asked->OnSlowClient(); }) {}

  MHD_Result Handle(MHD_Connection* connection, const char* path, const char* method,
                    void** context);
  void Paid();

  static MHD_Result OnRequest(void* self, MHD_Connection* connection, const char* path,
                              const char* method, const char* /*version*/, const char* /*upload*/,
                              size_t* /*upload_size*/, void** context) {
    return static_cast<Parts*>(self)->Handle(connection, path, method, context);
  }

  static void OnCompleted(void* self, MHD_Connection* connection, void** context,
                          MHD_RequestTerminationCode /*why*/) {
    static_cast<Parts*>(self)->guard.Answered(SocketOf(connection));
    delete static_cast<std::shared_ptr<Exchange>*>(std::exchange(*context, nullptr));
  }

  static void OnConnection(void* self, MHD_Connection* connection, void** /*context*/,
                           MHD_ConnectionNotificationCode what) {
    auto* parts = static_cast<Parts*>(self);
    const int fd = SocketOf(connection);
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
      parts->guard.Closed(fd);
      return;
    }
    parts->guard.Opened(fd);
    if (parts->credentials != nullptr) {
      const MHD_ConnectionInfo* info =
          MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
      UseCredentials(static_cast<gnutls_session_t>(info->tls_session), parts->credentials);
    }
  }

  HttpHandler* const handler;
  const Credentials* const credentials;
  SlowClientGuard guard;
  MHD_Daemon* daemon = nullptr;
  Mutex mutex;
  CondVar paid;
  bool refusing GUARDED_BY(mutex) = false;
  // Answers that the handler has promised for later.
  int owed GUARDED_BY(mutex) = 0;
};

void HttpServer::Parts::Paid() {
  MutexLock lock(&mutex);
  --owed;
  paid.NotifyAll();
}

// Called when a request's headers are read, when it is read whole, and each time it goes on.
MHD_Result HttpServer::Parts::Handle(MHD_Connection* connection, const char* path,
                                     const char* method, void** context) {
  if (*context == nullptr) {
    if (std::strcmp(method, MHD_HTTP_METHOD_GET) != 0 &&
        std::strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
      return Send(connection, handler->Refuse(MHD_HTTP_METHOD_NOT_ALLOWED));
    }
    if (HasBody(connection)) {
      return Send(connection, handler->Refuse(MHD_HTTP_BAD_REQUEST));
    }
    *context = new std::shared_ptr<Exchange>(std::make_shared<Exchange>(connection));
    return MHD_YES;
  }
  const auto& exchange = *static_cast<std::shared_ptr<Exchange>*>(*context);
  if (!exchange->asked) {
    exchange->asked = true;
    {
      MutexLock lock(&mutex);
      if (refusing) {
        return Send(connection, handler->Refuse(MHD_HTTP_SERVICE_UNAVAILABLE));
      }
      ++owed;
    }
    auto answer =
        handler->Handle(ReadRequest(connection, path), [this, exchange](HttpResponse response) {
          exchange->Answer(std::move(response));
          Paid();
        });
    if (answer.has_value()) {
      Paid();
      return Send(connection, *answer);
    }
  }
  const std::optional<HttpResponse> answer = exchange->Take();
  return answer.has_value() ? Send(connection, *answer) : MHD_YES;
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options,
                                                              HttpHandler* handler) {
  LASP_ASSIGN_OR_RETURN(const ListenAddress listen, ListenAddress::Parse(options.address));
  LASP_ASSIGN_OR_RETURN(const Addresses addresses, Resolve(options.flag, listen));
  auto parts = std::make_unique<Parts>(options, handler);
  unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME;
  if (addresses->ai_family == AF_INET6) {
    flags |= MHD_USE_IPv6;
  }
  std::vector<MHD_OptionItem> items = {
      {MHD_OPTION_CONNECTION_LIMIT, static_cast<intptr_t>(options.max_connections), nullptr},
      {MHD_OPTION_PER_IP_CONNECTION_LIMIT,
       static_cast<intptr_t>(options.max_connections_an_address), nullptr},
      {MHD_OPTION_CONNECTION_TIMEOUT,
       static_cast<intptr_t>(absl::ToInt64Seconds(options.idle_limit)), nullptr},
      {MHD_OPTION_CONNECTION_MEMORY_LIMIT, static_cast<intptr_t>(options.max_header_bytes),
       nullptr},
      {MHD_OPTION_STRICT_FOR_CLIENT, 1, nullptr},
      {MHD_OPTION_SOCK_ADDR, 0, addresses->ai_addr},
      {MHD_OPTION_UNESCAPE_CALLBACK, reinterpret_cast<intptr_t>(&Unescape), nullptr},
      {MHD_OPTION_NOTIFY_COMPLETED, reinterpret_cast<intptr_t>(&Parts::OnCompleted), parts.get()},
      {MHD_OPTION_NOTIFY_CONNECTION, reinterpret_cast<intptr_t>(&Parts::OnConnection),
       parts.get()}};
  if (options.credentials != nullptr) {
    flags |= MHD_USE_TLS;
    items.push_back({MHD_OPTION_HTTPS_PRIORITIES, 0, const_cast<char*>(kTlsPriorities)});
    items.push_back(
        {MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, reinterpret_cast<void*>(&RetrieveCertificate)});
  }
  items.push_back({MHD_OPTION_END, 0, nullptr});
  errno = 0;
  parts->daemon = MHD_start_daemon(flags, static_cast<uint16_t>(listen.port), nullptr, nullptr,
                                   &Parts::OnRequest, parts.get(), MHD_OPTION_ARRAY, items.data(),
                                   MHD_OPTION_END);
  if (parts->daemon == nullptr) {
    return PortTaken(options.flag, listen, errno == 0 ? "" : std::strerror(errno));
  }
  const uint16_t port = MHD_get_daemon_info(parts->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
  std::unique_ptr<HttpServer> server(new HttpServer(std::move(parts)));
  server->address_ = absl::StrCat(listen.host, ":", port);
  return server;
}

HttpServer::HttpServer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

HttpServer::~HttpServer() {
  Refuse();
  {
    // The library does not end while a connection is suspended.
    MutexLock lock(&parts_->mutex);
    while (parts_->owed > 0) {
      parts_->paid.Wait(&parts_->mutex);
    }
  }
  MHD_stop_daemon(parts_->daemon);
}

void HttpServer::Refuse() {
  MutexLock lock(&parts_->mutex);
  parts_->refusing = true;
}

size_t HttpServer::connections() const { return parts_->guard.connections(); }

}  // namespace lasp::server
