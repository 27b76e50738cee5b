#include "worker/telemetry/metric_families.h"

#include <algorithm>
#include <limits>

namespace lasp::worker {
namespace {

prometheus::ClientMetric NewMetric(const MetricLabels& labels) {
  prometheus::ClientMetric metric;
  for (const auto& [name, value] : labels) {
    metric.label.push_back({name, value});
  }
  return metric;
}

}  // namespace

prometheus::MetricFamily NewFamily(const std::string& name, const std::string& help,
                                   prometheus::MetricType type) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  return family;
}

void AddValue(const MetricLabels& labels, double value, prometheus::MetricFamily* family) {
  prometheus::ClientMetric metric = NewMetric(labels);
  if (family->type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family->metric.push_back(std::move(metric));
}

void AddHistogram(const MetricLabels& labels, prometheus::ClientMetric::Histogram histogram,
                  prometheus::MetricFamily* family) {
  prometheus::ClientMetric metric = NewMetric(labels);
  metric.histogram = std::move(histogram);
  family->metric.push_back(std::move(metric));
}

void BucketCounter::Observe(double value) {
  const auto bound = std::lower_bound(bounds_->begin(), bounds_->end(), value);
  ++counts_[static_cast<size_t>(bound - bounds_->begin())];
  sum_ += value;
}

void BucketCounter::Add(const BucketCounter& other) {
  for (size_t i = 0; i < counts_.size(); ++i) {
    counts_[i] += other.counts_[i];
  }
  sum_ += other.sum_;
}

prometheus::ClientMetric::Histogram BucketCounter::Histogram() const {
  prometheus::ClientMetric::Histogram histogram;
  std::uint64_t total = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    total += counts_[i];
    const double bound =
        i < bounds_->size() ? (*bounds_)[i] : std::numeric_limits<double>::infinity();
    histogram.bucket.push_back({total, bound});
  }
  histogram.sample_count = total;
  histogram.sample_sum = sum_;
  return histogram;
}

std::vector<double> GeometricBounds(double first, double factor, double last) {
  std::vector<double> bounds = {first};
  while (bounds.back() < last) {
    bounds.push_back(bounds.back() * factor);
  }
  return bounds;
}

}  // namespace lasp::worker
