// A rank for tests: a real process that speaks the channel and does what the job's train_paths tell
// it, entries `key=value`:
//   step_ms     time of a step
//   rank        only this rank misbehaves; all where it is not given
//   die_at      kills itself with SIGKILL after this step
//   exit_at     leaves with exit code 1 after this step, without a word
//   hang_at     goes on no further after this step, and reads nothing
//   save_at     says after this step that it has written a shard, whose file is the root and the
//               folders it was given
//   ignore_drain=1   goes on
//   leave_ms    leaves state, a file in the generation's folder, when it is told to: so long after
//               it has said that it does
//   linger=1    does not end after its last message
//   child=1     leaves a child that holds every descriptor
//   record      what rank 0 is ready with, unless it was given a record
//   lines, line_bytes   writes so many lines before training
//   print       env, fds, rights or threads: writes what it was given
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "proto/checkpoint/left_state_folder.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/rank_exit_code.h"
#include "worker/engine/process_privacy.h"
#include "worker/engine/rank_channel.h"

namespace lasp::worker {
namespace {

using lasp::internal::v1::FromRank;
using lasp::internal::v1::Setup;
using lasp::internal::v1::ToRank;

class FakeRank {
 public:
  int Run() {
    ToRank first;
    if (!*channel_.Read(&first) || !first.has_setup()) {
      return 1;
    }
    setup_ = first.setup();
    for (const std::string& entry : setup_.spec().data().train_paths()) {
      const size_t equals = entry.find('=');
      options_[entry.substr(0, equals)] = entry.substr(equals + 1);
    }
    if (options_.count("rank") != 0 && Number("rank") != setup_.fence().rank()) {
      const std::string step_ms = options_["step_ms"];
      options_.clear();
      options_["step_ms"] = step_ms;
    }
    listener_ = std::thread([this] { Listen(); });
    Show();
    if (Number("child") != 0 && fork() == 0) {
      for (;;) {
        pause();
      }
    }
    FromRank address;
    address.mutable_rank_address()->set_address("address-" + std::to_string(setup_.fence().rank()));
    Say(address);
    Await(&have_peers_);
    FromRank ready;
    if (setup_.fence().rank() == 0) {
      ready.mutable_ready()->set_gemm_record(setup_.gemm_record().empty() ? options_["record"]
                                                                          : setup_.gemm_record());
    }
    ready.mutable_ready();
    Say(ready);
    Await(&have_start_);
    return Train();
  }

 private:
  int64_t Number(const std::string& key) const {
    const auto found = options_.find(key);
    return found == options_.end() ? 0 : std::atoll(found->second.c_str());
  }

  void Say(const FromRank& message) {
    if (!channel_.Write(message).ok()) {
      _exit(kRankRetry);
    }
  }

  void Listen() {
    ToRank message;
    while (Number("hang_at") == 0 || step_ < Number("hang_at")) {
      const auto more = channel_.Read(&message);
      if (!more.ok() || !*more) {
        _exit(kRankRetry);  // the agent is gone
      }
      MutexLock lock(&mutex_);
      have_peers_ |= message.has_peer_addresses() &&
                     message.peer_addresses().addresses_size() == setup_.world_size();
      have_start_ |= message.has_start();
      drain_ |= message.has_drain() && Number("ignore_drain") == 0;
      leave_ |= message.has_leave_state() && options_.count("leave_ms") != 0;
      changed_.NotifyAll();
    }
  }

  // Also ends at a drain.
  void Await(const bool* flag) {
    MutexLock lock(&mutex_);
    while (!*flag && !drain_) {
      changed_.WaitWithTimeout(&mutex_, absl::Seconds(60));
    }
  }

  bool Draining() {
    MutexLock lock(&mutex_);
    return drain_;
  }

  void Show() const {
    const std::string& what = options_.count("print") != 0 ? options_.at("print") : "";
    if (what == "env") {
      for (char** entry = environ; *entry != nullptr; ++entry) {
        std::printf("env %s\n", *entry);
      }
    } else if (what == "fds") {
      for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code ignored;
        std::printf("fd %s %s\n", entry.path().filename().c_str(),
                    std::filesystem::read_symlink(entry.path(), ignored).c_str());
      }
    } else if (what == "rights") {
      std::ifstream status("/proc/self/status");
      for (std::string line; std::getline(status, line);) {
        std::printf("status %s\n", line.c_str());
      }
      std::printf("dumpable %d\n", prctl(PR_GET_DUMPABLE));
    } else if (what == "threads") {
      std::printf("threads %d\n", setup_.threads());
    } else if (what == "setup") {
      std::printf("peers speak %d\n", setup_.peers_protocol_version());
    }
    const std::string filler(static_cast<size_t>(std::max<int64_t>(1, Number("line_bytes"))), 'x');
    for (int64_t line = 0; line < Number("lines"); ++line) {
      std::printf("line %lld %s\n", static_cast<long long>(line), filler.c_str());
    }
    std::printf("rank %d of %d begins\n", setup_.fence().rank(), setup_.world_size());
    std::fflush(stdout);
  }

  bool Leaving() {
    MutexLock lock(&mutex_);
    return leave_;
  }

  int LeaveState() {
    FromRank message;
    message.mutable_phase()->set_phase(lasp::v1::RankStatus::PHASE_STOPPING);
    Say(message);
    absl::SleepFor(absl::Milliseconds(Number("leave_ms")));
    const std::filesystem::path folder =
        std::filesystem::path(setup_.memory_root()) /
        LeftStateFolder(setup_.fence().uid(), setup_.fence().generation());
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "rank.state") << "state";
    FromRank last;
    last.mutable_finished()->mutable_status()->set_code(1);
    last.mutable_finished()->mutable_state_left()->mutable_shard()->set_file("rank.state");
    Say(last);
    return kRankRetry;
  }

  int Train() {
    while (step_ < setup_.spec().max_steps() && !Draining()) {
      if (Leaving()) {
        return LeaveState();
      }
      absl::SleepFor(absl::Milliseconds(Number("step_ms")));
      const int64_t step = ++step_;
      FromRank message;
      auto* const report = message.mutable_step();
      report->set_step(step);
      report->set_tokens_total(step * 10);
      report->set_sp_sent_bytes_total(step * 100);
      report->set_dp_sent_bytes_total(step * 1000);
      report->set_step_seconds(0.02);
      report->set_forward_seconds(0.005);
      if (setup_.fence().rank() == 0) {
        report->mutable_metrics()->set_step(step);
        report->mutable_metrics()->set_loss(1.0 / static_cast<double>(step));
        report->mutable_metrics()->set_generation(setup_.fence().generation());
      }
      Say(message);
      if (step == Number("save_at")) {
        FromRank saved;
        saved.mutable_shard_written()->set_step(step);
        saved.mutable_shard_written()->mutable_shard()->set_file(setup_.checkpoint_root() + " " +
                                                                 setup_.checkpoint_folder() + " " +
                                                                 setup_.restore_from().folder());
        Say(saved);
        saved.mutable_checkpoint_totals()->set_written(1);
        Say(saved);
      }
      if (step == Number("die_at")) {
        kill(getpid(), SIGKILL);
      }
      if (step == Number("exit_at")) {
        _exit(1);
      }
      if (step == Number("hang_at")) {
        for (;;) {
          pause();
        }
      }
    }
    std::printf("rank %d ends after step %lld\n", setup_.fence().rank(),
                static_cast<long long>(step_));
    std::fflush(stdout);
    FromRank last;
    last.mutable_finished()->mutable_status();
    last.mutable_finished()->set_step(step_);
    Say(last);
    while (Number("linger") != 0) {
      pause();
    }
    return step_ < setup_.spec().max_steps() ? kRankDrained : kRankDone;
  }

  RankChannel channel_{kRankChannelDescriptor};
  Setup setup_;
  std::map<std::string, std::string> options_;
  std::atomic<int64_t> step_{0};
  Mutex mutex_;
  CondVar changed_;
  bool have_peers_ = false;
  bool have_start_ = false;
  bool drain_ = false;
  bool leave_ = false;
  // Never joined: the process ends under it.
  std::thread listener_;
};

}  // namespace
}  // namespace lasp::worker

// ThreadSanitizer otherwise sleeps for a second before a process ends.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming): the sanitizer's name
extern "C" const char* __tsan_default_options() { return "atexit_sleep_ms=0"; }

int main() {
  lasp::worker::KeepProcessPrivate();
  static lasp::worker::FakeRank rank;
  // Without destructors: the listening thread still uses what they would end.
  std::fflush(stdout);
  _exit(rank.Run());
}
