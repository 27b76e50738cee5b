// The coordinator's metrics that are counted as the core tells of things; core_metrics.h has those
// that are read. Names and labels are an interface: dashboards and alerts use them.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <functional>
#include <memory>

#include "server/core_observer.h"

namespace lasp::server {

// Thread-safe.
class ServerMetrics final : public CoreObserver {
 public:
  ServerMetrics();

  prometheus::Registry* registry() { return registry_.get(); }

  std::shared_ptr<prometheus::Collectable> counted() const { return registry_; }

  // Called with whether the store can write, whenever that changes. Set before the core starts.
  void set_on_store_health(std::function<void(bool)> callback) {
    on_store_health_ = std::move(callback);
  }

  // A stream was ended because its client did not read.
  void OnStreamEvicted() { watch_evictions_->Increment(); }

  // Somebody was refused what is beyond the limit that this flag sets.
  void OnLimitReached(const char* flag) { refusals_->Add({{"limit", flag}}).Increment(); }

  // Certificates or tokens have changed, and could be used or not.
  void OnCredentialReload(bool used) { (used ? reloads_used_ : reloads_refused_)->Increment(); }

  // --- CoreObserver ---
  void OnTransition(State from, State to, absl::string_view reason) override;
  void OnGenerationStarted(absl::Duration queued) override;
  void OnGenerationRunning(absl::Duration startup) override;
  void OnLeaseExpired() override;
  void OnGenerationFailed(absl::string_view reason) override;
  void OnCheckpoint(v1::Checkpoint::State state, absl::Duration took) override;
  void OnQueueFull() override;
  void OnStaleMessage() override;
  void OnCommit(size_t mutations, absl::Duration took) override;
  void OnRead(absl::Duration took) override;
  void OnStoreHealth(bool healthy) override;
  void OnSchedulerPass(absl::Duration took, int placed) override;
  void OnStepsStored(size_t count) override;
  void OnLogBytes(size_t count) override;
  void OnLogChunkDropped() override;

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  std::function<void(bool)> on_store_health_;
  prometheus::Family<prometheus::Counter>* finished_ = nullptr;
  prometheus::Family<prometheus::Counter>* restarts_ = nullptr;
  prometheus::Histogram* queue_seconds_ = nullptr;
  prometheus::Histogram* startup_seconds_ = nullptr;
  prometheus::Histogram* checkpoint_seconds_ = nullptr;
  prometheus::Counter* checkpoints_committed_ = nullptr;
  prometheus::Counter* checkpoints_failed_ = nullptr;
  prometheus::Counter* checkpoints_corrupt_ = nullptr;
  prometheus::Histogram* write_seconds_ = nullptr;
  prometheus::Histogram* write_rows_ = nullptr;
  prometheus::Histogram* read_seconds_ = nullptr;
  prometheus::Histogram* scheduler_seconds_ = nullptr;
  prometheus::Counter* lease_expirations_ = nullptr;
  prometheus::Counter* fenced_messages_ = nullptr;
  prometheus::Counter* watch_evictions_ = nullptr;
  prometheus::Family<prometheus::Counter>* refusals_ = nullptr;
  prometheus::Counter* reloads_used_ = nullptr;
  prometheus::Counter* reloads_refused_ = nullptr;
  prometheus::Counter* steps_ = nullptr;
  prometheus::Counter* log_bytes_ = nullptr;
  prometheus::Counter* log_chunks_dropped_ = nullptr;
  prometheus::Gauge* store_writable_ = nullptr;
};

}  // namespace lasp::server
