#include "worker/agent/log_reader.h"

#include <utility>

#include "absl/time/time.h"

namespace lasp::worker {
namespace {

constexpr absl::Duration kIdleWait = absl::Seconds(1);

}  // namespace

LogReader::LogReader(LogShipper* shipper, std::function<void()> has_read)
    : shipper_(shipper), has_read_(std::move(has_read)), thread_([this] { Run(); }) {}

LogReader::~LogReader() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void LogReader::Ask() {
  MutexLock lock(&mutex_);
  asked_ = true;
  changed_.NotifyAll();
}

bool LogReader::WaitUntilAsked() {
  MutexLock lock(&mutex_);
  while (!asked_ && !stopping_) {
    changed_.WaitWithTimeout(&mutex_, kIdleWait);
  }
  asked_ = false;
  return !stopping_;
}

void LogReader::Run() {
  while (WaitUntilAsked()) {
    if (shipper_->Fill()) {
      has_read_();
    }
  }
}

}  // namespace lasp::worker
