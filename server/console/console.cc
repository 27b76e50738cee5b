#include "server/console/console.h"

#include <google/protobuf/util/json_util.h>
#include <openssl/sha.h>

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"
#include "server/console/api_caller.h"
#include "server/console/console_files.h"
#include "server/console/http_server.h"
#include "server/console/request_policy.h"

namespace lasp::server {
namespace {

constexpr char kJson[] = "application/json; charset=utf-8";
constexpr char kFlag[] = "console_address";

// As google.api.http maps them.
int HttpCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kAlreadyExists:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  return status.ok() ? absl::StatusOr<std::string>(std::move(text))
                     : absl::InternalError("the answer has no form in JSON");
}

// google.rpc.Status as JSON.
HttpResponse ErrorResponse(const absl::Status& error) {
  HttpResponse response{.code = HttpCode(error.code()), .content_type = kJson};
  const auto body = ToJson(StatusToProto(error));
  response.body = body.ok() ? *body : "{}";
  if (response.code == 401) {
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
  }
  return response;
}

std::string EtagOf(absl::string_view body) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(body.data()), body.size(), digest);
  constexpr size_t kBytes = 16;
  return absl::StrCat("\"", absl::BytesToHexString({reinterpret_cast<const char*>(digest), kBytes}),
                      "\"");
}

// 304 where the client has this body already.
HttpResponse Changed(const std::string& known, const char* content_type, std::string body) {
  HttpResponse response{.content_type = content_type, .headers = {{"ETag", EtagOf(body)}}};
  if (known == response.headers[0].second) {
    response.code = 304;
    response.content_type.clear();
  } else {
    response.body = std::move(body);
  }
  return response;
}

// Of every answer. The page takes nothing from elsewhere, runs no script but its files, is shown in
// nobody's frame, and is kept in no cache.
void AddPolicy(HttpResponse* response) {
  for (const auto& [name, value] : std::initializer_list<std::pair<const char*, const char*>>{
           {"Content-Security-Policy",
            "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"},
           {"X-Frame-Options", "DENY"},
           {"X-Content-Type-Options", "nosniff"},
           {"Referrer-Policy", "no-referrer"},
           {"Cross-Origin-Opener-Policy", "same-origin"},
           {"Cross-Origin-Resource-Policy", "same-origin"},
           {"Cache-Control", "no-store"}}) {
    response->headers.emplace_back(name, value);
  }
}

std::string HostOf(const std::string& address) { return address.substr(0, address.rfind(':')); }

}  // namespace

class Console::Handler final : public HttpHandler {
 public:
  explicit Handler(const ConsoleOptions& options)
      : own_host_(HostOf(options.address)),
        credentials_(options.credentials),
        metrics_(options.metrics),
        clock_(options.clock),
        caller_(options.api) {}

  std::optional<HttpResponse> Handle(const HttpRequest& request, Respond later) override {
    const absl::Duration start = clock_->Monotonic();
    const absl::Status status = CheckRequest(request, own_host_, *credentials_);
    if (!status.ok()) {
      return Finish(ErrorResponse(status), start);
    }
    const std::vector<absl::string_view> tags = request.Header("if-none-match");
    const std::string known = tags.size() == 1 ? std::string(tags[0]) : "";
    if (const ConsoleFile* file = FindConsoleFile(request.path); file != nullptr) {
      return Finish(Changed(known, file->content_type, std::string(file->text())), start);
    }
    absl::StatusOr<ApiCall> call = ParseApiCall(request.path, request.parameters);
    if (!call.ok()) {
      return Finish(ErrorResponse(call.status()), start);
    }
    std::vector<std::string> authorization;
    for (const absl::string_view value : request.Header("authorization")) {
      authorization.emplace_back(value);
    }
    caller_.Start(*std::move(call), authorization,
                  [this, start, known, later = std::move(later)](auto answer) {
                    later(Finish(ToResponse(known, std::move(answer)), start));
                  });
    return std::nullopt;
  }

  HttpResponse Refuse(int code) override {
    HttpResponse response = ErrorResponse(
        code == 405   ? ErrorWithReason(absl::StatusCode::kUnimplemented,
                                        "the console is read-only: use GET", "METHOD_NOT_ALLOWED")
        : code == 400 ? ErrorWithReason(absl::StatusCode::kInvalidArgument,
                                        "a request to the console has no body", "MALFORMED_REQUEST")
                      : absl::UnavailableError("the coordinator is stopping: try again soon"));
    response.code = code;
    if (code == 405) {
      response.headers.emplace_back("Allow", "GET, HEAD");
    }
    return Finish(std::move(response), clock_->Monotonic());
  }

  void OnSlowClient() override { metrics_->OnSlowClient(); }

  void Cancel() { caller_.Cancel(); }

 private:
  static HttpResponse ToResponse(
      const std::string& known,
      const absl::StatusOr<std::unique_ptr<google::protobuf::Message>>& answer) {
    if (!answer.ok()) {
      return ErrorResponse(answer.status());
    }
    absl::StatusOr<std::string> body = ToJson(**answer);
    return body.ok() ? Changed(known, kJson, *std::move(body)) : ErrorResponse(body.status());
  }

  HttpResponse Finish(HttpResponse response, absl::Duration start) {
    AddPolicy(&response);
    metrics_->OnAnswer(response.code, clock_->Monotonic() - start);
    return response;
  }

  const std::string own_host_;
  const Credentials* const credentials_;
  ConsoleMetrics* const metrics_;
  const Clock* const clock_;
  ApiCaller caller_;
};

absl::StatusOr<std::unique_ptr<Console>> Console::Start(const ConsoleOptions& options) {
  std::unique_ptr<Console> console(new Console);
  console->handler_ = std::make_unique<Handler>(options);
  LASP_ASSIGN_OR_RETURN(
      console->server_,
      HttpServer::Start(
          {.flag = kFlag,
           .address = options.address,
           .credentials = options.credentials->has_tls() ? options.credentials : nullptr,
           .clock = options.clock,
           .request_limit = options.request_limit},
          console->handler_.get()));
  return console;
}

Console::Console() = default;

Console::~Console() {
  if (server_ != nullptr) {
    server_->Refuse();
    handler_->Cancel();
  }
  server_.reset();
}

const std::string& Console::address() const { return server_->address(); }

}  // namespace lasp::server
