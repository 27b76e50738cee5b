// What the doctor makes of what it finds, and the real program with and without a coordinator.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/address_probe.h"
#include "client/doctor_checks.h"
#include "tests/client/commands_fixture.h"
#include "tests/support/status_matchers.h"

namespace lasp::client {
namespace {

using lasp::testing::StatusIs;
using lasp::v1::ServerInfo;
using lasp::v1::Worker;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kNow = 1'780'000'000;
constexpr int64_t kGibibyte = int64_t{1} << 30;

absl::Time Now() { return absl::FromUnixSeconds(kNow); }

ServerInfo Info() {
  ServerInfo info;
  info.set_version("0.1.0");
  info.mutable_time()->set_seconds(kNow);
  info.set_store_disk_size_bytes(100 * kGibibyte);
  info.set_store_disk_free_bytes(50 * kGibibyte);
  return info;
}

Worker Ready(const std::string& id) {
  Worker worker;
  worker.set_name("workers/" + id);
  worker.set_state(Worker::STATE_READY);
  worker.set_version("0.1.0");
  worker.mutable_last_heartbeat_time()->set_seconds(kNow - 1);
  auto* report = worker.mutable_host_report();
  report->mutable_clock_offset()->set_nanos(1'000'000);
  report->set_work_disk_size_bytes(100 * kGibibyte);
  report->set_work_disk_free_bytes(50 * kGibibyte);
  return worker;
}

std::map<std::string, Finding> ByCheck(const std::vector<Finding>& findings) {
  std::map<std::string, Finding> map;
  for (const Finding& finding : findings) {
    EXPECT_EQ(finding.mend.empty(),
              finding.verdict == Verdict::kOk || finding.verdict == Verdict::kSkipped)
        << finding.check;
    map[finding.check] = finding;
  }
  return map;
}

TEST(DoctorChecks, CertificatesAreToBeRenewedInTime) {
  EXPECT_EQ(CheckCertificateEnd("c", Now() + absl::Hours(24 * 90), Now()).verdict, Verdict::kOk);
  EXPECT_EQ(CheckCertificateEnd("c", Now() + absl::Hours(24 * 5), Now()).verdict, Verdict::kWarn);
  EXPECT_EQ(CheckCertificateEnd("c", Now() + absl::Hours(2), Now()).verdict, Verdict::kFail);
  const Finding ended = CheckCertificateEnd("c", Now() - absl::Hours(1), Now());
  EXPECT_EQ(ended.verdict, Verdict::kFail);
  EXPECT_THAT(ended.message, HasSubstr("ended on 2026-05-28 19:26 UTC"));
  EXPECT_THAT(ended.mend, HasSubstr("deploy/credentials rotate"));
}

TEST(DoctorChecks, ATokenIsAcceptedOrNot) {
  EXPECT_EQ(CheckToken(absl::UnauthenticatedError("the token ann ended"), true, {}, Now()).verdict,
            Verdict::kFail);
  ServerInfo info = Info();
  EXPECT_EQ(CheckToken(absl::OkStatus(), true, info, Now()).verdict, Verdict::kOk);
  info.mutable_token_expire_time()->set_seconds(kNow + 3600);
  EXPECT_EQ(CheckToken(absl::OkStatus(), true, info, Now()).verdict, Verdict::kWarn);
  EXPECT_EQ(CheckToken(absl::UnavailableError(""), true, info, Now()).verdict, Verdict::kSkipped);
}

TEST(DoctorChecks, OneReleaseApartIsAWarning) {
  EXPECT_EQ(CheckVersions("1.4.2", "1.4.2").verdict, Verdict::kOk);
  EXPECT_EQ(CheckVersions("1.4.2", "1.5.0").verdict, Verdict::kWarn);
  EXPECT_EQ(CheckVersions("1.4.2", "1.6.0").verdict, Verdict::kFail);
  EXPECT_EQ(CheckVersions("1.4.2", "2.4.2").verdict, Verdict::kFail);
  EXPECT_EQ(CheckVersions("1.4.2", "unknown").verdict, Verdict::kFail);
}

TEST(DoctorChecks, ClocksAreJudgedByWhatIsSure) {
  EXPECT_EQ(CheckClock(absl::Seconds(1), absl::ZeroDuration()).verdict, Verdict::kOk);
  EXPECT_EQ(CheckClock(absl::Seconds(-3), absl::ZeroDuration()).verdict, Verdict::kWarn);
  EXPECT_EQ(CheckClock(absl::Seconds(3), absl::Seconds(2)).verdict, Verdict::kOk);
  EXPECT_EQ(CheckClock(absl::Minutes(-2), absl::Seconds(2)).verdict, Verdict::kFail);
  EXPECT_THAT(CheckClock(absl::Seconds(-3), absl::ZeroDuration()).message,
              HasSubstr("3.00s behind this host's"));
}

TEST(DoctorChecks, TheStoreNeedsRoom) {
  ServerInfo info = Info();
  EXPECT_EQ(CheckStore(info).verdict, Verdict::kOk);
  info.set_store_disk_free_bytes(8 * kGibibyte);
  EXPECT_EQ(CheckStore(info).verdict, Verdict::kWarn);
  info.set_store_disk_free_bytes(kGibibyte);
  EXPECT_EQ(CheckStore(info).verdict, Verdict::kFail);
  info = Info();
  info.set_store_error("disk full");
  EXPECT_EQ(CheckStore(info).verdict, Verdict::kFail);
  EXPECT_EQ(CheckStore({}).verdict, Verdict::kOk);
}

TEST(DoctorChecks, HealthyAgentsAreFine) {
  const auto findings = ByCheck(CheckAgents({Ready("a"), Ready("b")}, Info()));
  EXPECT_EQ(findings.size(), SkippedAgentChecks("").size());
  for (const auto& [check, finding] : findings) {
    EXPECT_EQ(finding.verdict, Verdict::kOk) << check << ": " << finding.message;
  }
}

TEST(DoctorChecks, EachTroubleOfAnAgentHasItsLine) {
  Worker worker = Ready("sick");
  worker.set_version("0.3.0");
  worker.mutable_last_heartbeat_time()->set_seconds(kNow - 6);
  worker.mutable_host_report()->mutable_clock_offset()->set_seconds(-5);
  worker.mutable_host_report()->set_work_disk_free_bytes(kGibibyte);
  worker.mutable_host_report()->add_gpu_problems("GPU 3: it is lost");
  Worker lost = Ready("gone");
  lost.set_state(Worker::STATE_LOST);
  auto findings = ByCheck(CheckAgents({worker, lost, Ready("fine")}, Info()));
  EXPECT_EQ(findings["agents"].verdict, Verdict::kWarn);
  EXPECT_THAT(findings["agents"].message, AllOf(HasSubstr("sick was last heard of 6s ago"),
                                                HasSubstr("gone is lost"), Not(HasSubstr("fine"))));
  EXPECT_EQ(findings["agent versions"].verdict, Verdict::kFail);
  EXPECT_EQ(findings["agent versions"].message, "sick is 0.3.0");
  EXPECT_EQ(findings["agent clocks"].message, "sick is 5.00s behind");
  EXPECT_EQ(findings["agent disks"].verdict, Verdict::kFail);
  EXPECT_EQ(findings["gpus"].message, "sick: GPU 3: it is lost");
}

TEST(DoctorChecks, WithoutAnAgentTheRestIsSkipped) {
  auto none = ByCheck(CheckAgents({}, Info()));
  EXPECT_EQ(none["agents"].verdict, Verdict::kFail);
  EXPECT_EQ(none["gpus"].verdict, Verdict::kSkipped);
  EXPECT_EQ(none.size(), 5U);
}

TEST(DoctorChecks, AgentsThatSayNothingAreCounted) {
  Worker old = Ready("old");
  old.clear_host_report();
  auto findings = ByCheck(CheckAgents({old, Ready("new")}, Info()));
  EXPECT_EQ(findings["agent clocks"].verdict, Verdict::kOk);
  EXPECT_THAT(findings["agent clocks"].message, HasSubstr("1 agent of an older release"));
}

TEST(AddressProbe, TellsWhatIsThere) {
  EXPECT_THAT(ConnectTo("no-such-host.invalid:7070", absl::Seconds(20)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("'no-such-host.invalid'")));
  std::string gone;
  {
    FakeServer server;
    gone = server.address();
    const auto connected = ConnectTo(gone, absl::Seconds(5));
    LASP_ASSERT_OK(connected);
    // Plaintext where TLS is expected.
    EXPECT_THAT(ProbeTls(*connected, gone, {}, absl::Seconds(5)),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no TLS")));
  }
  EXPECT_THAT(ConnectTo(gone, absl::Seconds(5)),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("connection refused")));
}

using DoctorTest = CommandsFixture;

json FindCheck(const json& findings, const std::string& check) {
  for (const json& finding : findings) {
    if (finding["check"] == check) {
      return finding;
    }
  }
  return {};
}

TEST_F(DoctorTest, LooksAtEverything) {
  Worker worker = Ready("host");
  worker.set_version("9.9.9");
  server_.PutWorker(worker);
  const ProcessResult result = Run({"doctor", "-o", "json"});
  const json findings = json::parse(result.out);
  EXPECT_EQ(FindCheck(findings, "address")["verdict"], "ok");
  EXPECT_EQ(FindCheck(findings, "coordinator")["verdict"], "ok");
  EXPECT_EQ(FindCheck(findings, "versions")["verdict"], "fail");  // the server says 9.9.9
  EXPECT_EQ(FindCheck(findings, "agent versions")["verdict"], "ok");
  EXPECT_EQ(FindCheck(findings, "clock")["verdict"], "skipped");
  EXPECT_EQ(result.exit_code, 1);
  const ProcessResult table = Run({"doctor"});
  EXPECT_THAT(table.out, HasSubstr("ok      credentials     plaintext, no token\n"));
  EXPECT_THAT(table.out, HasSubstr("                        -> install lasp 9.9.9 here\n"));
}

TEST_F(DoctorTest, ARefusedTokenIsNoDeadCoordinator) {
  server_.FailWith(absl::UnauthenticatedError("this coordinator does not know the token"));
  const json findings = json::parse(Run({"doctor", "-o", "json"}).out);
  EXPECT_EQ(FindCheck(findings, "coordinator")["verdict"], "ok");
  EXPECT_EQ(FindCheck(findings, "token")["verdict"], "fail");
  EXPECT_EQ(FindCheck(findings, "store")["verdict"], "skipped");
}

TEST(DoctorWithoutServer, SaysWhatCouldNotBeChecked) {
  std::string address;
  {
    FakeServer gone;
    address = gone.address();
  }
  const absl::Time begin = absl::Now();
  const ProcessResult result = RunLasp({"doctor", "-o", "json"}, {{"LASP_SERVER", address}});
  EXPECT_LT(absl::Now() - begin, absl::Seconds(20));
  EXPECT_EQ(result.exit_code, 1);
  const json findings = json::parse(result.out);
  EXPECT_EQ(FindCheck(findings, "address")["verdict"], "fail");
  EXPECT_THAT(FindCheck(findings, "address")["message"].get<std::string>(),
              HasSubstr("connection refused"));
  for (const char* check : {"coordinator", "token", "versions", "clock", "store", "agents",
                            "agent versions", "agent clocks", "agent disks", "gpus"}) {
    EXPECT_EQ(FindCheck(findings, check)["verdict"], "skipped") << check;
  }
  EXPECT_EQ(RunLasp({"doctor"}, {{"LASP_SERVER", "no-such-host.invalid"}}).exit_code, 1);
}

TEST(DoctorWithoutServer, BadCredentialsAreTheFirstThingSaid) {
  const ProcessResult result =
      RunLasp({"doctor", "--tls_ca", "/nowhere/ca.crt"}, {{"LASP_SERVER", "127.0.0.1:1"}});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("fail    credentials"));
  EXPECT_THAT(result.out, HasSubstr("/nowhere/ca.crt"));
}

}  // namespace
}  // namespace lasp::client
