#include "server/process_metrics.h"

#include <dirent.h>
#include <prometheus/metric_family.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace lasp::server {
namespace {

prometheus::MetricFamily One(const char* name, const char* help, prometheus::MetricType type,
                             double value) {
  prometheus::ClientMetric metric;
  if (type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  family.metric.push_back(std::move(metric));
  return family;
}

double CountOpenFiles() {
  DIR* const directory = opendir("/proc/self/fd");
  if (directory == nullptr) {
    return 0;
  }
  int count = 0;
  while (readdir(directory) != nullptr) {  // NOLINT(concurrency-mt-unsafe)
    ++count;
  }
  closedir(directory);
  // Without ".", ".." and the descriptor that reads the folder.
  return count - 3;
}

double BootTimeSeconds() {
  std::ifstream file("/proc/stat");
  std::string key;
  while (file >> key) {
    if (key == "btime") {
      double seconds = 0;
      file >> seconds;
      return seconds;
    }
    std::getline(file, key);
  }
  return 0;
}

// The fields of /proc/self/stat from the third on; the second (the name) may hold spaces.
std::vector<double> StatFields() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  const size_t end_of_name = line.rfind(')');
  std::vector<double> fields;
  if (end_of_name != std::string::npos) {
    for (const auto& word : absl::StrSplit(line.substr(end_of_name + 1), ' ', absl::SkipEmpty())) {
      double value = 0;
      fields.push_back(absl::SimpleAtod(word, &value) ? value : 0);
    }
  }
  return fields;
}

}  // namespace

std::vector<prometheus::MetricFamily> ProcessMetrics::Collect() const {
  using prometheus::MetricType;
  std::vector<prometheus::MetricFamily> families;
  // Offsets into proc(5)'s fields, which count from 1, less the two that StatFields leaves out.
  constexpr size_t kUserTime = 14 - 3;
  constexpr size_t kSystemTime = 15 - 3;
  constexpr size_t kThreads = 20 - 3;
  constexpr size_t kStartTime = 22 - 3;
  constexpr size_t kVirtualBytes = 23 - 3;
  constexpr size_t kResidentPages = 24 - 3;
  const std::vector<double> stat = StatFields();
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  if (stat.size() > kResidentPages) {
    families.push_back(One("process_cpu_seconds_total", "Processor time used, user and system",
                           MetricType::Counter, (stat[kUserTime] + stat[kSystemTime]) / ticks));
    families.push_back(One("process_resident_memory_bytes", "Memory in use", MetricType::Gauge,
                           stat[kResidentPages] * static_cast<double>(sysconf(_SC_PAGESIZE))));
    families.push_back(One("process_virtual_memory_bytes", "Address space in use",
                           MetricType::Gauge, stat[kVirtualBytes]));
    families.push_back(
        One("process_threads", "Threads of the process", MetricType::Gauge, stat[kThreads]));
    families.push_back(One("process_start_time_seconds", "When the process began, in Unix time",
                           MetricType::Gauge, BootTimeSeconds() + stat[kStartTime] / ticks));
  }
  families.push_back(
      One("process_open_fds", "Open file descriptors", MetricType::Gauge, CountOpenFiles()));
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    families.push_back(One("process_max_fds", "File descriptors the process may open",
                           MetricType::Gauge, static_cast<double>(limit.rlim_cur)));
  }
  return families;
}

}  // namespace lasp::server
