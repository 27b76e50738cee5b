#include "proto/rpc/process_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "proto/rpc/version.h"

namespace lasp {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

std::string ReadWhole(const char* path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Fields of /proc/self/stat after the program's name, which may hold spaces and brackets.
std::vector<std::string> StatFields() {
  const std::string text = ReadWhole("/proc/self/stat");
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) {
    return {};
  }
  return absl::StrSplit(absl::string_view(text).substr(name_end + 1), ' ', absl::SkipEmpty());
}

// Field `number` as proc(5) counts them.
double StatField(const std::vector<std::string>& fields, size_t number) {
  constexpr size_t kFirst = 3;
  double value = 0;
  if (number - kFirst < fields.size() && absl::SimpleAtod(fields[number - kFirst], &value)) {
    return value;
  }
  return 0;
}

double BootTimeSeconds() {
  double seconds = 0;
  for (absl::string_view line : absl::StrSplit(ReadWhole("/proc/stat"), '\n')) {
    if (absl::StartsWith(line, "btime ") && absl::SimpleAtod(line.substr(6), &seconds)) {
      return seconds;
    }
  }
  return 0;
}

double OpenFiles() {
  DIR* const folder = opendir("/proc/self/fd");
  if (folder == nullptr) {
    return 0;
  }
  int count = 0;
  // Each folder stream has its own state, so two scrapes do not meet here.
  while (readdir(folder) != nullptr) {  // NOLINT(concurrency-mt-unsafe)
    ++count;
  }
  closedir(folder);
  // Without `.`, `..` and the folder just opened.
  return count - 3;
}

MetricFamily Family(const char* name, const char* help, MetricType type, double value) {
  MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  ClientMetric metric;
  if (type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family.metric.push_back(std::move(metric));
  return family;
}

}  // namespace

ProcessMetrics::ProcessMetrics(std::string component) : component_(std::move(component)) {}

std::vector<MetricFamily> ProcessMetrics::Collect() const {
  const std::vector<std::string> stat = StatFields();
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const double page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);

  std::vector<MetricFamily> families;
  MetricFamily build =
      Family("lasp_build_info", "What this program was built from; always 1", MetricType::Gauge, 1);
  build.metric.front().label = {
      {"component", component_}, {"revision", Revision()}, {"version", Version()}};
  families.push_back(std::move(build));
  families.push_back(Family(
      "lasp_time_seconds", "This host's clock, Unix time: how far it is from Prometheus' own",
      MetricType::Gauge, absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch())));
  families.push_back(Family("process_cpu_seconds_total", "User and system CPU time",
                            MetricType::Counter,
                            (StatField(stat, 14) + StatField(stat, 15)) / ticks));
  families.push_back(Family("process_resident_memory_bytes", "Resident memory", MetricType::Gauge,
                            StatField(stat, 24) * page_bytes));
  families.push_back(Family("process_virtual_memory_bytes", "Virtual memory", MetricType::Gauge,
                            StatField(stat, 23)));
  families.push_back(
      Family("process_open_fds", "Open file descriptors", MetricType::Gauge, OpenFiles()));
  families.push_back(Family("process_max_fds", "Limit of open file descriptors", MetricType::Gauge,
                            static_cast<double>(files.rlim_cur)));
  families.push_back(Family("process_threads", "Threads", MetricType::Gauge, StatField(stat, 20)));
  families.push_back(Family("process_start_time_seconds", "Start of the process, Unix time",
                            MetricType::Gauge, BootTimeSeconds() + StatField(stat, 22) / ticks));
  return families;
}

}  // namespace lasp
