#include "worker/telemetry/agent_metrics.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "worker/telemetry/metric_families.h"

namespace lasp::worker {

using prometheus::MetricFamily;
using prometheus::MetricType;

void AgentMetrics::SetConnected(bool connected) {
  MutexLock lock(&mutex_);
  connections_ += connected && !connected_ ? 1 : 0;
  connected_ = connected;
}

void AgentMetrics::SetBufferedSteps(size_t buffered, int64_t thinned) {
  MutexLock lock(&mutex_);
  buffered_steps_ = buffered;
  thinned_steps_ = thinned;
}

void AgentMetrics::SetLogBytes(int64_t sent, int64_t dropped) {
  MutexLock lock(&mutex_);
  log_sent_bytes_ = sent;
  log_dropped_bytes_ = dropped;
}

void AgentMetrics::RankStarted() {
  MutexLock lock(&mutex_);
  ++ranks_started_;
}

void AgentMetrics::RankEnded(int exit_code, int code) {
  MutexLock lock(&mutex_);
  ++ranks_ended_[exit_code];
  if (code != 0) {
    const bool known = code > 0 && code <= static_cast<int>(absl::StatusCode::kUnauthenticated);
    ++rank_errors_[known ? code : static_cast<int>(absl::StatusCode::kUnknown)];
  }
}

std::vector<MetricFamily> AgentMetrics::Collect() const {
  std::vector<MetricFamily> families;
  const auto add = [&families](const char* name, const char* help, MetricType type, double value) {
    families.push_back(NewFamily(name, help, type));
    AddValue({}, value, &families.back());
  };
  const int busy_slots = ranks_->LiveRanks();
  MutexLock lock(&mutex_);
  add("lasp_agent_connected", "Whether the coordinator has welcomed this agent", MetricType::Gauge,
      connected_ ? 1 : 0);
  add("lasp_agent_reconnects_total", "Connections to the coordinator after the first",
      MetricType::Counter, static_cast<double>(std::max<int64_t>(0, connections_ - 1)));
  families.push_back(NewFamily("lasp_agent_slots", "Places for ranks", MetricType::Gauge));
  AddValue({{"state", "busy"}}, busy_slots, &families.back());
  AddValue({{"state", "free"}}, slots_ - busy_slots, &families.back());
  add("lasp_agent_ranks_started_total", "Rank processes started", MetricType::Counter,
      static_cast<double>(ranks_started_));
  if (!ranks_ended_.empty()) {
    families.push_back(NewFamily("lasp_agent_ranks_ended_total",
                                 "Rank processes that ended, by exit code", MetricType::Counter));
    for (const auto& [exit_code, count] : ranks_ended_) {
      AddValue({{"exit_code", absl::StrCat(exit_code)}}, static_cast<double>(count),
               &families.back());
    }
  }
  families.push_back(
      NewFamily("lasp_agent_rank_errors_total",
                "Errors that ranks ended with, by code; UNAVAILABLE: a peer or NCCL failed, "
                "DEADLINE_EXCEEDED: a collective did not end",
                MetricType::Counter));
  for (const auto& [code, count] : rank_errors_) {
    AddValue({{"code", absl::StatusCodeToString(static_cast<absl::StatusCode>(code))}},
             static_cast<double>(count), &families.back());
  }
  add("lasp_agent_buffered_steps", "Step reports the coordinator has not acknowledged",
      MetricType::Gauge, static_cast<double>(buffered_steps_));
  add("lasp_agent_thinned_steps_total",
      "Step reports dropped since the coordinator was away too long", MetricType::Counter,
      static_cast<double>(thinned_steps_));
  add("lasp_agent_log_sent_bytes_total", "Bytes of rank logs sent to the coordinator",
      MetricType::Counter, static_cast<double>(log_sent_bytes_));
  add("lasp_agent_log_dropped_bytes_total",
      "Bytes of rank logs rotated away or removed before they were sent", MetricType::Counter,
      static_cast<double>(log_dropped_bytes_));
  return families;
}

}  // namespace lasp::worker
