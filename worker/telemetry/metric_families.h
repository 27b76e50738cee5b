// Short forms for building Prometheus metric families by hand: totals that ranks report are shown
// as they are, which the library's counters cannot do.
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace lasp::worker {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

prometheus::MetricFamily NewFamily(const std::string& name, const std::string& help,
                                   prometheus::MetricType type);

// Adds one series; the family's type says what the value is.
void AddValue(const MetricLabels& labels, double value, prometheus::MetricFamily* family);
void AddHistogram(const MetricLabels& labels, prometheus::ClientMetric::Histogram histogram,
                  prometheus::MetricFamily* family);

// Counts observations into buckets of fixed bounds. Not thread-safe.
class BucketCounter {
 public:
  // `bounds` ascend and outlive the counter.
  explicit BucketCounter(const std::vector<double>* bounds)
      : bounds_(bounds), counts_(bounds->size() + 1) {}

  void Observe(double value);
  // Counts in what `other`, of the same bounds, has counted.
  void Add(const BucketCounter& other);
  prometheus::ClientMetric::Histogram Histogram() const;

 private:
  const std::vector<double>* bounds_;
  std::vector<std::uint64_t> counts_;
  double sum_ = 0;
};

// `first`, first × factor, … up to the first at or above `last`.
std::vector<double> GeometricBounds(double first, double factor, double last);

}  // namespace lasp::worker
