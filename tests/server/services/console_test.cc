// The console on a real port: what it shows to whom, what it refuses, and how it bounds clients.
#include "server/console/console.h"

#include <google/protobuf/util/json_util.h>
#include <sys/stat.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/access_table.h"
#include "server/console/api_route.h"
#include "server/console/console_files.h"
#include "server/console/slow_client_guard.h"
#include "tests/server/services/fake_agent.h"
#include "tests/server/services/http_exchange.h"
#include "tests/server/services/running_server.h"
#include "tests/server/services/scrape.h"
#include "tests/server/services/token_line.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kJobs[] = "/api/v1/projects/-/trainingJobs";

template <typename Message>
Message ParseJson(const HttpAnswer& answer) {
  Message message;
  EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(answer.body, &message).ok())
      << answer.code << " " << answer.body;
  return message;
}

std::string ReasonOf(const HttpAnswer& answer) {
  return ErrorReason(StatusFromProto(ParseJson<google::rpc::Status>(answer)));
}

ServerOptions WithConsole() {
  ServerOptions options;
  options.console_address = "127.0.0.1:0";
  return options;
}

class ConsoleTest : public ::testing::Test {
 protected:
  explicit ConsoleTest(const ServerOptions& options = WithConsole()) : server_(options) {}

  const std::string& address() { return server_.server().addresses().console_address; }

  HttpAnswer Get(const std::string& target, const std::vector<std::string>& headers = {}) {
    return Ask(address(), target, headers);
  }

  RunningServer server_;
};

TEST(ConsoleRoutesTest, EachIsAReadingThatViewersMayDo) {
  for (const ApiRoute& route : ApiRoutes()) {
    const AccessRule* rule = FindAccessRule(route.method);
    ASSERT_NE(rule, nullptr) << route.method;
    EXPECT_EQ(rule->audience, Audience::kUsers) << route.method;
    EXPECT_EQ(rule->role, Role::kViewer) << route.method;
    const std::string name =
        absl::StrCat("/api/v1/", absl::StrReplaceAll(route.path, {{"*", "x"}}));
    const auto call = ParseApiCall(name, {});
    LASP_ASSERT_OK(call);
    EXPECT_EQ(call->route, &route);
    const std::string& method = call->method->name();
    EXPECT_TRUE(absl::StartsWith(method, "Get") || absl::StartsWith(method, "List") ||
                absl::StartsWith(method, "Query") || absl::StartsWith(method, "Stream"))
        << method;
  }
}

TEST(ConsoleRoutesTest, ParametersAreFieldsOfTheRequest) {
  const auto call = ParseApiCall("/api/v1/projects/nlp/trainingJobs",
                                 {{"page_size", "7"}, {"filter", "state=RUNNING"}});
  LASP_ASSERT_OK(call);
  const auto& request = static_cast<const v1::ListTrainingJobsRequest&>(*call->request);
  EXPECT_EQ(request.parent(), "projects/nlp");
  EXPECT_EQ(request.page_size(), 7);
  EXPECT_EQ(request.filter(), "state=RUNNING");

  const NamedValues kWrong[] = {
      {{"page_size", "many"}},    {{"page_size", "1"}, {"page_size", "2"}},
      {{"parent", "projects/-"}}, {{"colour", "red"}},
      {{"filter", "\xff"}},       {{"page_size", "99999999999"}},
  };
  for (const NamedValues& parameters : kWrong) {
    const auto refused = ParseApiCall("/api/v1/projects/nlp/trainingJobs", parameters);
    EXPECT_TRUE(absl::IsInvalidArgument(refused.status())) << refused.status();
    EXPECT_EQ(FieldViolations(refused.status())[0].field, parameters[0].first);
  }
  // A stream without an end is for gRPC.
  EXPECT_FALSE(ParseApiCall("/api/v1/projects/p/trainingJobs/j/logs", {{"follow", "true"}}).ok());
  for (const char* path :
       {"/api/v1/", "/api/v1", "/api/v2/server", "/api/v1/server/",
        "/api/v1/projects//trainingJobs", "/api/v1/workers/a/b", "/apiv1/server"}) {
    EXPECT_TRUE(absl::IsNotFound(ParseApiCall(path, {}).status())) << path;
  }
}

TEST_F(ConsoleTest, ServesThePageWithItsPolicy) {
  const HttpAnswer page = Get("/");
  EXPECT_EQ(page.code, 200);
  EXPECT_EQ(page.Header("Content-Type"), "text/html; charset=utf-8");
  EXPECT_EQ(page.body, std::string(FindConsoleFile("/")->text()));
  EXPECT_THAT(page.Header("Content-Security-Policy"), HasSubstr("default-src 'self'"));
  EXPECT_THAT(page.Header("Content-Security-Policy"), Not(HasSubstr("unsafe")));
  EXPECT_EQ(page.Header("X-Frame-Options"), "DENY");
  EXPECT_EQ(page.Header("X-Content-Type-Options"), "nosniff");
  EXPECT_EQ(page.Header("Cache-Control"), "no-store");
  EXPECT_EQ(page.Header("Referrer-Policy"), "no-referrer");
  EXPECT_EQ(page.Header("Set-Cookie"), "");
  EXPECT_EQ(page.Header("Access-Control-Allow-Origin"), "");
  // Whatever the page names is there.
  for (const char* path : {"/main.js", "/console.css", "/icon.svg"}) {
    EXPECT_THAT(page.body, HasSubstr(absl::StrCat("\"", path, "\"")));
    EXPECT_EQ(Get(path).code, 200) << path;
  }
  EXPECT_EQ(Get("/main.js").Header("Content-Type"), "text/javascript; charset=utf-8");
}

TEST_F(ConsoleTest, AnswersAsTheApiDoes) {
  LASP_ASSERT_OK(server_.Create("first", 2));
  const auto list = ParseJson<v1::ListTrainingJobsResponse>(Get(kJobs));
  ASSERT_EQ(list.training_jobs_size(), 1);
  EXPECT_EQ(list.training_jobs(0).name(), RunningServer::NameOf("first"));

  const HttpAnswer job = Get("/api/v1/projects/default/trainingJobs/first");
  EXPECT_EQ(job.code, 200);
  EXPECT_EQ(job.Header("Content-Type"), "application/json; charset=utf-8");
  EXPECT_EQ(job.Header("X-Content-Type-Options"), "nosniff");
  EXPECT_THAT(job.body, HasSubstr("\"display_name\":"));
  EXPECT_EQ(ParseJson<v1::TrainingJob>(job).SerializeAsString(),
            server_.Get("first")->SerializeAsString());

  EXPECT_EQ(ParseJson<v1::ServerInfo>(Get("/api/v1/server")).version(), Version());
  EXPECT_EQ(Get("/api/v1/workers").code, 200);
  EXPECT_EQ(Get("/api/v1/projects/default/trainingJobs/first/metrics?max_points=10").code, 200);
  EXPECT_EQ(Get("/api/v1/projects/default/trainingJobs/first/logs?tail_lines=10").code, 200);

  const HttpAnswer missing = Get("/api/v1/projects/default/trainingJobs/other");
  EXPECT_EQ(missing.code, 404);
  EXPECT_EQ(ReasonOf(missing), "JOB_NOT_FOUND");
  EXPECT_EQ(Get(absl::StrCat(kJobs, "?filter=colour%3Dred")).code, 400);
  EXPECT_EQ(Get(absl::StrCat(kJobs, "?filter=state%3DRUNNING")).code, 200);
  EXPECT_EQ(Get("/api/v1/projects/default/trainingJobs/first/logs?rank=7").code, 400);
}

TEST_F(ConsoleTest, AnswersWhatHasNotChangedWith304) {
  const HttpAnswer first = Get(kJobs);
  const std::string tag = first.Header("ETag");
  EXPECT_FALSE(tag.empty());
  const HttpAnswer second = Get(kJobs, {"If-None-Match: " + tag});
  EXPECT_EQ(second.code, 304);
  EXPECT_EQ(second.body, "");
  EXPECT_EQ(second.Header("Cache-Control"), "no-store");
  LASP_ASSERT_OK(server_.Create("first"));
  EXPECT_EQ(Get(kJobs, {"If-None-Match: " + tag}).code, 200);
}

TEST_F(ConsoleTest, LeavesOutTheBodyOfHead) {
  const HttpAnswer answer = Ask(address(), kJobs, {}, "HEAD");
  EXPECT_EQ(answer.code, 200);
  EXPECT_EQ(answer.body, "");
  EXPECT_FALSE(answer.Header("ETag").empty());
}

TEST_F(ConsoleTest, IsReadOnly) {
  for (const char* method :
       {"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get"}) {
    const HttpAnswer answer = Ask(address(), kJobs, {}, method);
    EXPECT_EQ(answer.code, 405) << method;
    EXPECT_EQ(answer.Header("Allow"), "GET, HEAD") << method;
    EXPECT_EQ(answer.Header("X-Frame-Options"), "DENY") << method;
  }
  EXPECT_EQ(Ask(address(), "/", {"Content-Length: 3"}).code, 400);
  EXPECT_EQ(Ask(address(), "/", {"Transfer-Encoding: chunked"}).code, 400);
}

TEST_F(ConsoleTest, ABodyIsNoSecondRequest) {
  const std::string second =
      "GET /main.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  for (const std::string& first :
       {absl::StrCat("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: ", second.size()),
        absl::StrCat("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: ", second.size()),
        std::string("GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked")}) {
    const HttpAnswer answer = ExchangeBytes(address(), absl::StrCat(first, "\r\n\r\n", second));
    EXPECT_GE(answer.code, 400) << first;
    EXPECT_THAT(answer.body, Not(HasSubstr("HTTP/1.1"))) << first;
  }
}

TEST_F(ConsoleTest, FindsNothingOutsideItsFiles) {
  for (const char* path :
       {"/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/..%2fmain.js",
        "/main.js/", "/main.js%00.png", "/./main.js", "/index.html", "/console.css/../main.js",
        "/api/v1/projects/..%2f..%2fx/trainingJobs", "/api/v1/%2e%2e/server", "*"}) {
    EXPECT_GE(Get(path).code, 400) << path;
  }
  EXPECT_EQ(ReasonOf(Get("/nowhere")), "NO_SUCH_PATH");
}

TEST_F(ConsoleTest, RefusesNamesThatAreNotItsOwn) {
  for (const char* host : {"Host: localhost", "Host: LOCALHOST:7072", "Host: 127.0.0.1:80",
                           "Host: [::1]:7072", "Host: 192.0.2.7"}) {
    EXPECT_EQ(Get("/", {host}).code, 200) << host;
  }
  for (const char* host :
       {"Host: evil.example", "Host: localhost.evil.example", "Host: 127.0.0.1.evil.example",
        "Host: evil.example:7072", "Host: localhost@evil.example", "Host: 0x7f.1"}) {
    const HttpAnswer answer = Get(kJobs, {host});
    EXPECT_EQ(answer.code, 400) << host;
    EXPECT_EQ(ReasonOf(answer), "UNKNOWN_HOST") << host;
  }
  EXPECT_EQ(Get("/", {"Host: localhost", "Host: localhost"}).code, 400);
  EXPECT_EQ(Get("/", {"Host:"}).code, 400);
  EXPECT_EQ(ExchangeBytes(address(), "GET / HTTP/1.1\r\nConnection: close\r\n\r\n").code, 400);
  EXPECT_EQ(ExchangeBytes(address(), "GET / HTTP/1.0\r\n\r\n").code, 400);
}

TEST_F(ConsoleTest, RefusesOtherSitesPages) {
  for (const char* site : {"cross-site", "same-site"}) {
    const HttpAnswer answer = Get(kJobs, {absl::StrCat("Sec-Fetch-Site: ", site)});
    EXPECT_EQ(answer.code, 403);
    EXPECT_EQ(ReasonOf(answer), "CROSS_SITE");
  }
  EXPECT_EQ(Get(kJobs, {"Sec-Fetch-Site: same-origin"}).code, 200);
}

TEST_F(ConsoleTest, RefusesWhatIsTooLarge) {
  const std::string large(20'000, 'a');
  EXPECT_EQ(Get("/" + large).code, 414);
  EXPECT_EQ(Get("/", {"X-Large: " + large}).code, 431);
  std::string many = "X-0: 1";
  for (int i = 1; i < 3'000; ++i) {
    absl::StrAppend(&many, "\r\nX-", i, ": 1");
  }
  EXPECT_EQ(Get("/", {many}).code, 431);
  for (const std::string& bytes :
       {std::string("\r\n\r\n\r\n"), std::string("GARBAGE\r\n\r\n"), std::string(64, '\0'),
        std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + "\r\n\r\n"}) {
    const UniqueFd connection = ConnectTo(address());
    EXPECT_GT(send(connection.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), 0);
  }
  EXPECT_EQ(Get("/").code, 200);
}

TEST_F(ConsoleTest, CountsRequests) {
  Get("/");
  Get("/nowhere");
  const std::string page = Scrape(server_.server().addresses().metrics_address);
  EXPECT_THAT(page, HasSubstr("lasp_console_requests_total{code=\"200\"} 1"));
  EXPECT_THAT(page, HasSubstr("lasp_console_requests_total{code=\"404\"} 1"));
  EXPECT_THAT(page, HasSubstr("lasp_console_request_seconds_count 2"));
}

TEST_F(ConsoleTest, EndsWithConnectionsOpen) {
  const UniqueFd idle = ConnectTo(address());
  const UniqueFd half = ConnectTo(address());
  ASSERT_GT(send(half.get(), "GET /", 5, 0), 0);
  const absl::Time start = absl::Now();
  server_.Restart();
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  EXPECT_EQ(Get("/").code, 200);
}

TEST_F(ConsoleTest, ManyIdleConnectionsKeepNobodyOut) {
  // More than one address may have: the others are closed, and room is again when they leave.
  {
    constexpr int kMany = 200;
    std::vector<UniqueFd> idle;
    idle.reserve(kMany);
    for (int i = 0; i < kMany; ++i) {
      idle.push_back(ConnectTo(address()));
    }
    EXPECT_EQ(ReadAnswer(idle.back().get()).code, 0);
  }
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  int code = 0;
  while (code != 200 && absl::Now() < deadline) {
    code = Get("/").code;
  }
  EXPECT_EQ(code, 200);
}

TEST(SlowClientGuardTest, EndsOnlyWhatTakesTooLong) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  const UniqueFd near(pair[0]);
  const UniqueFd far(pair[1]);
  Mutex mutex;
  int dropped = 0;
  {
    SlowClientGuard guard(&SystemClock(), absl::Milliseconds(50), [&] {
      MutexLock lock(&mutex);
      ++dropped;
    });
    guard.Opened(near.get());
    EXPECT_EQ(guard.connections(), 1u);
    char byte = 0;
    EXPECT_EQ(recv(far.get(), &byte, 1, 0), 0);
    guard.Answered(near.get());
    guard.Closed(near.get());
    EXPECT_EQ(guard.connections(), 0u);
  }
  EXPECT_EQ(dropped, 1);
}

TEST(ConsoleLimitsTest, ATricklingClientIsDropped) {
  RunningServer server;
  prometheus::Registry registry;
  ConsoleMetrics metrics(&registry);
  const auto credentials = Credentials::Load({}, [](bool) {});
  LASP_ASSERT_OK(credentials);
  const auto console = Console::Start({.address = "127.0.0.1:0",
                                       .api = server.channel(),
                                       .credentials = credentials->get(),
                                       .metrics = &metrics,
                                       .clock = &SystemClock(),
                                       .request_limit = absl::Milliseconds(300)});
  LASP_ASSERT_OK(console);
  const UniqueFd slow = ConnectTo((*console)->address());
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  ASSERT_GT(send(slow.get(), "GET /", 5, 0), 0);
  // A byte now and then is no idle connection.
  while (send(slow.get(), "a", 1, MSG_NOSIGNAL) == 1 && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_LT(absl::Now(), deadline);
  EXPECT_EQ(Ask((*console)->address(), "/").code, 200);
}

// With tokens.
class ConsoleAccessTest : public ::testing::Test {
 protected:
  ConsoleAccessTest() : server_(Options()) {}

  ServerOptions Options() {
    folder_.Write("tokens", absl::StrCat(TokenLine("root", "admin", "*"),
                                         TokenLine("vic", "viewer", "default"),
                                         TokenLine("eve", "viewer", "foreign"),
                                         TokenLine("old", "admin", "*", "2020-01-01T00:00:00Z")));
    chmod(folder_.Join("tokens").c_str(), 0600);
    ServerOptions options = WithConsole();
    options.credentials.token_file = folder_.Join("tokens");
    return options;
  }

  HttpAnswer As(const std::string& token, const std::string& target) {
    return Ask(server_.server().addresses().console_address, target,
               {"Authorization: Bearer " + token});
  }

  void Create(const std::string& id) {
    const auto channel =
        NewChannel(server_.server().addresses().api_address, {.tls = {}, .token = "root"});
    const auto jobs = v1::TrainingJobService::NewStub(channel);
    LASP_ASSERT_OK(RunningServer::Call(jobs.get(), &v1::TrainingJobService::Stub::CreateTrainingJob,
                                       RunningServer::CreateRequest(id)));
  }

  const ::lasp::testing::TempDirectory folder_;
  RunningServer server_;
};

TEST_F(ConsoleAccessTest, ThePageIsForAllAndWhatItShowsIsNot) {
  Create("job");
  const std::string& address = server_.server().addresses().console_address;
  EXPECT_EQ(Ask(address, "/").code, 200);
  for (const ApiRoute& route : ApiRoutes()) {
    std::string path = absl::StrCat("/api/v1/", route.path);
    path = absl::StrReplaceAll(path, {{"projects/*", "projects/default"}});
    path = absl::StrReplaceAll(
        path, {{"trainingJobs/*", "trainingJobs/job"}, {"workers/*", "workers/w"}});
    EXPECT_EQ(Ask(address, path).code, 401) << path;
    EXPECT_EQ(As("nobody", path).code, 401) << path;
    EXPECT_EQ(As("old", path).code, 401) << path;
    const int found = absl::EndsWith(path, "workers/w") ? 404 : 200;
    EXPECT_EQ(As("vic", path).code, found) << path;
    EXPECT_EQ(As("root", path).code, found) << path;
    const bool in_project = absl::StrContains(path, "projects/");
    EXPECT_EQ(As("eve", path).code, in_project ? 403 : found) << path;
    // A denial says nothing of what there is.
    if (in_project) {
      EXPECT_THAT(As("eve", path).body, Not(HasSubstr("corpus"))) << path;
    }
  }
  EXPECT_EQ(ReasonOf(As("nobody", kJobs)), "TOKEN_UNKNOWN");
  EXPECT_EQ(As("nobody", kJobs).Header("WWW-Authenticate"), "Bearer");
  EXPECT_EQ(ReasonOf(As("old", kJobs)), "TOKEN_EXPIRED");
  EXPECT_EQ(ReasonOf(Ask(address, kJobs)), "TOKEN_MISSING");
}

TEST_F(ConsoleAccessTest, ListsHoldWhatTheTokenGrants) {
  Create("job");
  EXPECT_EQ(ParseJson<v1::ListTrainingJobsResponse>(As("vic", kJobs)).training_jobs_size(), 1);
  EXPECT_EQ(ParseJson<v1::ListTrainingJobsResponse>(As("eve", kJobs)).training_jobs_size(), 0);
}

TEST_F(ConsoleAccessTest, TokensComeOnlyAsOneBearerHeader) {
  const std::string& address = server_.server().addresses().console_address;
  const std::vector<std::string> kWrong[] = {
      {"Authorization: Basic dmljOg=="},
      {"Authorization: Bearer vic", "Authorization: Bearer vic"},
      {"Cookie: authorization=Bearer vic"},
      {"Authorization: vic"},
      {"X-Forwarded-User: root"},
      {"lasp-caller: root"},
      {":lasp-caller: root"},
  };
  for (const auto& headers : kWrong) {
    const int code = Ask(address, kJobs, headers).code;
    EXPECT_TRUE(code == 401 || code == 400) << headers[0] << " " << code;
  }
  EXPECT_EQ(Ask(address, absl::StrCat(kJobs, "?access_token=vic")).code, 400);
  // What gRPC would end the process for.
  EXPECT_EQ(Ask(address, kJobs, {"Authorization: Bearer \x01\xff"}).code, 400);
  EXPECT_EQ(Ask(address, kJobs, {"Authorization: Bearer " + std::string(5'000, 'a')}).code, 400);
  EXPECT_EQ(As("vic", kJobs).code, 200);
}

}  // namespace
}  // namespace lasp::server
