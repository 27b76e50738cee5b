#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/address_probe.h"
#include "client/commands/commands.h"
#include "client/connection_options.h"
#include "client/doctor_checks.h"
#include "client/document.h"
#include "client/exit_code.h"
#include "client/output.h"
#include "client/time_text.h"
#include "client/utf8.h"
#include "client/worker_list.h"
#include "proto/rpc/status_macros.h"
#include "proto/rpc/version.h"

namespace lasp::client {
namespace {

using lasp::v1::ServerInfo;
using lasp::v1::Worker;

// Of one check; --timeout may shorten it.
constexpr absl::Duration kPatience = absl::Seconds(5);
constexpr char kNotReached[] = "the coordinator was not reached";

class Examination {
 public:
  explicit Examination(Session* session)
      : session_(*session),
        patience_(std::min(kPatience, session->options().timeout.value_or(kPatience))) {}

  std::vector<Finding> Run() {
    if (!CheckCredentials() || !CheckAddress()) {
      Skip({"coordinator", "token", "versions", "clock", "store"}, kNotReached);
      Append(SkippedAgentChecks(kNotReached));
      return std::move(findings_);
    }
    ServerInfo info;
    if (AskCoordinator(&info)) {
      AskForAgents(info);
    } else {
      Skip({"versions", "clock", "store"}, "the coordinator gave no answer");
      Append(SkippedAgentChecks("the coordinator gave no answer"));
    }
    return std::move(findings_);
  }

 private:
  void Add(Finding finding) { findings_.push_back(std::move(finding)); }

  void Append(std::vector<Finding> findings) {
    for (Finding& finding : findings) {
      Add(std::move(finding));
    }
  }

  void Skip(const std::vector<std::string>& checks, const std::string& why) {
    for (const std::string& check : checks) {
      Add({check, Verdict::kSkipped, why, ""});
    }
  }

  // The files that the flags, the environment or the context name.
  bool CheckCredentials() {
    absl::StatusOr<ChannelSecurity> security = ReadSecurity(session_.options());
    if (!security.ok()) {
      Add({"credentials", Verdict::kFail, std::string(security.status().message()),
           "mend the file, or name another one with --tls_ca, --tls_cert, --tls_key, --token_file "
           "or in 'lasp config'"});
      Skip({"address"}, "the credentials are of no use");
      return false;
    }
    security_ = *std::move(security);
    const GlobalOptions& options = session_.options();
    Add({"credentials", Verdict::kOk,
         absl::StrCat(
             security_.tls.wanted() ? "TLS" : "plaintext",
             security_.token.empty() ? ", no token" : ", a token",
             options.context.empty() ? "" : absl::StrCat(", of the context ", options.context)),
         ""});
    if (!security_.tls.certificate.empty()) {
      Add(CheckCertificateEnd("own certificate", security_.tls.end, absl::Now()));
    }
    return true;
  }

  bool CheckAddress() {
    const std::string& address = session_.options().server;
    const absl::Time start = absl::Now();
    const absl::StatusOr<UniqueFd> connected = ConnectTo(address, patience_);
    if (!connected.ok()) {
      Add({"address", Verdict::kFail, std::string(connected.status().message()),
           "start lasp-server there, open the port, or name another coordinator with --server, "
           "LASP_SERVER or a context"});
      return false;
    }
    Add({"address", Verdict::kOk,
         absl::StrFormat("%s answers after %.1f ms", address,
                         absl::ToDoubleMilliseconds(absl::Now() - start)),
         ""});
    return !security_.tls.wanted() || CheckTls(*connected, address);
  }

  bool CheckTls(const UniqueFd& connected, const std::string& address) {
    const absl::StatusOr<TlsProbe> probe = ProbeTls(connected, address, security_.tls, patience_);
    if (!probe.ok()) {
      Add({"trust", Verdict::kFail, std::string(probe.status().message()),
           "is it the port of the API, and was the coordinator started with --tls_cert?"});
      return false;
    }
    Add(CheckCertificateTrust(probe->problem));
    Add(CheckCertificateEnd("certificate", probe->end, absl::Now()));
    return probe->problem.empty();
  }

  // Whether there is an answer.
  bool AskCoordinator(ServerInfo* info) {
    const absl::StatusOr<Connection*> connection = session_.Connect();
    if (!connection.ok()) {
      Add({"coordinator", Verdict::kFail, std::string(connection.status().message()),
           security_.tls.wanted()
               ? "is it a coordinator that listens there?"
               : "is it a coordinator that listens there? One with TLS wants --tls_ca"});
      Skip({"token"}, kNotReached);
      return false;
    }
    const absl::Time sent = absl::Now();
    const auto answer =
        (*connection)
            ->Call(&(*connection)->server(), &lasp::v1::ServerService::Stub::GetServerInfo,
                   lasp::v1::GetServerInfoRequest(), patience_);
    const absl::Time received = absl::Now();
    if (answer.ok()) {
      *info = *answer;
    }
    const bool refused =
        absl::IsUnauthenticated(answer.status()) || absl::IsPermissionDenied(answer.status());
    Add({"coordinator", answer.ok() || refused ? Verdict::kOk : Verdict::kFail,
         answer.ok()
             ? absl::StrCat("lasp-server ", info->version(), ", up for ",
                            FormatAge(FromProto(info->time()) - FromProto(info->start_time())))
         : refused ? "it answers"
                   : std::string(answer.status().message()),
         answer.ok() || refused ? "" : "look at the coordinator's log"});
    Add(CheckToken(answer.status(), !security_.token.empty(), *info, received));
    if (!answer.ok()) {
      return false;
    }
    Add(CheckVersions(lasp::Version(), info->version()));
    if (info->has_time()) {
      const absl::Duration doubt = (received - sent) / 2;
      Add(CheckClock(FromProto(info->time()) - (sent + doubt), doubt));
    } else {
      Skip({"clock"}, "a coordinator of an older release does not tell its time");
      *info->mutable_time() = answer->start_time();
    }
    Add(CheckStore(*info));
    return true;
  }

  void AskForAgents(const ServerInfo& info) {
    const auto workers = AllWorkers();
    if (workers.ok()) {
      Append(CheckAgents(*workers, info));
    } else {
      Append(SkippedAgentChecks(std::string(workers.status().message())));
    }
  }

  absl::StatusOr<std::vector<Worker>> AllWorkers() {
    LASP_ASSIGN_OR_RETURN(Connection* const connection, session_.Connect());
    return ListWorkers(connection, absl::Now() + patience_);
  }

  Session& session_;
  const absl::Duration patience_;
  ChannelSecurity security_;
  std::vector<Finding> findings_;
};

Style StyleOf(Verdict verdict) {
  return verdict == Verdict::kOk     ? Style::kGood
         : verdict == Verdict::kFail ? Style::kBad
         : verdict == Verdict::kWarn ? Style::kBusy
                                     : Style::kDim;
}

// A line a finding, below it how to mend it.
std::string Lines(const std::vector<Finding>& findings, const Terminal& terminal) {
  std::string text;
  for (const Finding& finding : findings) {
    absl::StrAppend(&text,
                    Paint(absl::StrFormat("%-8s", VerdictName(finding.verdict)),
                          StyleOf(finding.verdict), terminal.color),
                    absl::StrFormat("%-16s", finding.check), Printable(finding.message), "\n");
    if (!finding.mend.empty()) {
      absl::StrAppend(&text, std::string(24, ' '), "-> ", Printable(finding.mend), "\n");
    }
  }
  return text;
}

Document ToDocument(const std::vector<Finding>& findings) {
  Document array = Document::array();
  for (const Finding& finding : findings) {
    array.push_back({{"check", finding.check},
                     {"verdict", VerdictName(finding.verdict)},
                     {"message", finding.message},
                     {"mend", finding.mend}});
  }
  return array;
}

}  // namespace

absl::StatusOr<int> Doctor(Session* session) {
  const std::vector<Finding> findings = Examination(session).Run();
  Console& console = session->console();
  const OutputFormat format = session->options().output;
  if (format == OutputFormat::kJson || format == OutputFormat::kYaml) {
    console.Print(DocumentText(ToDocument(findings), format));
  } else {
    console.Print(Lines(findings, console.Out()));
  }
  const bool failed = std::any_of(findings.begin(), findings.end(), [](const Finding& finding) {
    return finding.verdict == Verdict::kFail;
  });
  return failed ? kExitFailed : kExitOk;
}

}  // namespace lasp::client
