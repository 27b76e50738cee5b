// Which losses are far above those before them.
#pragma once

#include <cstddef>
#include <deque>
#include <vector>

namespace lasp::worker {

// All ranks see the same losses, and so come to the same limits. Not thread-safe.
class LossWatch {
 public:
  // Losses that are looked back on, and those without which nothing is said.
  static constexpr size_t kWindow = 128;
  static constexpr size_t kFewest = 32;

  // A loss is an outlier above the window's mean by so many of its standard deviations; 0: none is.
  // `losses`: as of an earlier losses().
  LossWatch(double deviations, const std::vector<double>& losses);

  // Above it a loss is an outlier; infinite where nothing can be said. A window of nearly equal
  // losses counts as spread by a thousandth of their mean.
  double limit() const;

  // Of a step that was neither an outlier nor skipped.
  void Add(double loss);

  std::vector<double> losses() const { return {losses_.begin(), losses_.end()}; }

 private:
  const double deviations_;
  std::deque<double> losses_;
};

}  // namespace lasp::worker
