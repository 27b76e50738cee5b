#include "tests/worker/engine/fake_agent.h"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "proto/rpc/clock.h"
#include "proto/spec/spec_defaults.h"

extern char** environ;

namespace lasp::worker {

namespace {

// This process's, with the entry `entry` ("NAME=VALUE") in place of the one of its name.
std::vector<std::string> EnvironmentWith(const std::string& entry) {
  std::vector<std::string> environment = {entry};
  const std::string prefix = entry.substr(0, entry.find('=') + 1);
  for (char** inherited = environ; *inherited != nullptr; ++inherited) {
    if (std::string(*inherited).rfind(prefix, 0) != 0) {
      environment.emplace_back(*inherited);
    }
  }
  return environment;
}

}  // namespace

// Beside one another, in the folder LASP_BIN where that is set: packed programs move.
std::string PathOf(const std::string& program) {
  const char* const folder = std::getenv("LASP_BIN");
  return (folder == nullptr ? std::string(LASP_PROGRAMS) : std::string(folder)) + "/" + program;
}

FakeAgent::FakeAgent(Options options) : options_(std::move(options)) {
  FillDefaults(&options_.spec);
  const int world = options_.spec.parallelism().sequence_parallel().size() *
                    options_.spec.parallelism().data_parallel().size();
  for (int rank = 0; rank < world; ++rank) {
    ranks_.push_back(std::make_unique<Rank>());
  }
  for (int rank = 0; rank < world; ++rank) {
    Launch(rank);
  }
}

void FakeAgent::Launch(int rank) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return;
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], kRankChannelDescriptor);
  std::string program = PathOf("lasp-rank");
  std::vector<std::string> environment;
  if (options_.gpus.empty()) {
    environment = EnvironmentWith("OMP_WAIT_POLICY=passive");
  } else {
    program = PathOf("lasp-rank-cuda");
    environment = EnvironmentWith("CUDA_VISIBLE_DEVICES=" + options_.gpus[rank]);
  }
  std::vector<char*> entries;
  entries.reserve(environment.size() + 1);
  for (std::string& entry : environment) {
    entries.push_back(entry.data());
  }
  entries.push_back(nullptr);
  char* const arguments[] = {program.data(), nullptr};
  Rank& state = *ranks_[rank];
  ::posix_spawn(&state.pid, program.c_str(), &actions, nullptr, arguments, entries.data());
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  state.channel = std::make_unique<RankChannel>(ends[0]);
  state.reader = std::thread([this, rank] { Read(rank); });

  lasp::internal::v1::ToRank message;
  lasp::internal::v1::Setup& setup = *message.mutable_setup();
  setup.mutable_fence()->set_training_job("projects/default/trainingJobs/test");
  setup.mutable_fence()->set_uid("uid");
  setup.mutable_fence()->set_generation(options_.generation);
  setup.mutable_fence()->set_rank(rank);
  setup.set_world_size(world_size());
  *setup.mutable_spec() = options_.spec;
  for (const std::string& root : options_.path_roots) {
    setup.add_path_roots(root);
  }
  setup.set_rank_address("127.0.0.1");
  setup.set_threads(options_.threads);
  setup.set_dump_directory(options_.dump_directory);
  setup.set_gemm_record(options_.gemm_record);
  setup.set_checkpoint_root(options_.checkpoint_root);
  setup.set_checkpoint_folder(options_.checkpoint_folder);
  if (options_.restore_from.has_value()) {
    *setup.mutable_restore_from() = *options_.restore_from;
  }
  setup.set_memory_root(options_.memory_root);
  if (options_.rebuild.has_value()) {
    *setup.mutable_rebuild() = *options_.rebuild;
  }
  (void)state.channel->Write(message);
}

void FakeAgent::Read(int rank) {
  Rank& state = *ranks_[rank];
  while (true) {
    lasp::internal::v1::FromRank message;
    const auto more = state.channel->Read(&message);
    MutexLock lock(&mutex_);
    if (!more.ok() || !*more) {
      state.closed = true;
      changed_.NotifyAll();
      return;
    }
    RankRecord& record = state.record;
    if (message.has_rank_address()) {
      record.address = message.rank_address().address();
    } else if (message.has_ready()) {
      record.ready = true;
      record.gemm_record = message.ready().gemm_record();
    } else if (message.has_step()) {
      record.steps.push_back(message.step());
    } else if (message.has_phase()) {
      record.phases.push_back(message.phase().phase());
    } else if (message.has_shard_written() && !record.finished) {
      record.shards.push_back(message.shard_written());
    } else if (message.has_checkpoint_totals()) {
      record.checkpoint_totals = message.checkpoint_totals();
    } else if (message.has_finished()) {
      record.finished = true;
      record.end = message.finished();
    }
    changed_.NotifyAll();
  }
}

FakeAgent::~FakeAgent() {
  for (auto& rank : ranks_) {
    if (rank->pid > 0 && !rank->reaped) {
      ::kill(rank->pid, SIGKILL);
      ::waitpid(rank->pid, nullptr, 0);
    }
    if (rank->channel != nullptr) {
      rank->channel->Shutdown();
    }
    if (rank->reader.joinable()) {
      rank->reader.join();
    }
  }
}

template <typename Condition>
bool FakeAgent::WaitUntil(absl::Duration timeout, Condition condition) {
  const absl::Duration deadline = SystemClock().Monotonic() + timeout;
  MutexLock lock(&mutex_);
  while (true) {
    int met = 0;
    bool closed = false;
    for (const auto& rank : ranks_) {
      met += condition(*rank) ? 1 : 0;
      closed = closed || (rank->closed && !condition(*rank));
    }
    if (met == world_size()) {
      return true;
    }
    const absl::Duration left = deadline - SystemClock().Monotonic();
    if (closed || left <= absl::ZeroDuration()) {
      return false;
    }
    changed_.WaitWithTimeout(&mutex_, left);
  }
}

bool FakeAgent::WaitForAddresses(absl::Duration timeout) {
  return WaitUntil(timeout, [](const Rank& rank) { return !rank.record.address.empty(); });
}

void FakeAgent::SendAddresses() {
  lasp::internal::v1::ToRank message;
  for (int rank = 0; rank < world_size(); ++rank) {
    message.mutable_peer_addresses()->add_addresses(record(rank).address);
  }
  for (const auto& rank : ranks_) {
    (void)rank->channel->Write(message);
  }
}

bool FakeAgent::WaitForReady(absl::Duration timeout) {
  return WaitUntil(timeout, [](const Rank& rank) { return rank.record.ready; });
}

void FakeAgent::SendStart() {
  lasp::internal::v1::ToRank message;
  message.mutable_start();
  for (const auto& rank : ranks_) {
    (void)rank->channel->Write(message);
  }
}

bool FakeAgent::Begin(absl::Duration timeout) {
  if (!WaitForAddresses(timeout)) {
    return false;
  }
  SendAddresses();
  if (!WaitForReady(timeout)) {
    return false;
  }
  SendStart();
  return true;
}

void FakeAgent::Drain(int rank) {
  lasp::internal::v1::ToRank message;
  message.mutable_drain();
  (void)ranks_[rank]->channel->Write(message);
}

void FakeAgent::CloseChannel(int rank) { ranks_[rank]->channel->Shutdown(); }

bool FakeAgent::WaitForShards(int rank, size_t count, absl::Duration timeout) {
  const Rank* const wanted = ranks_[rank].get();
  return WaitUntil(timeout, [wanted, count](const Rank& candidate) {
    return &candidate != wanted || candidate.record.shards.size() >= count;
  });
}

bool FakeAgent::WaitForStep(int rank, int64_t step, absl::Duration timeout) {
  const Rank* const wanted = ranks_[rank].get();
  return WaitUntil(timeout, [wanted, step](const Rank& candidate) {
    return &candidate != wanted ||
           (!candidate.record.steps.empty() && candidate.record.steps.back().step() >= step);
  });
}

int FakeAgent::WaitForExit(int rank, absl::Duration timeout) {
  Rank& state = *ranks_[rank];
  if (state.reaped) {
    return state.exit_code;
  }
  const int descriptor = static_cast<int>(::syscall(SYS_pidfd_open, state.pid, 0));
  pollfd wait = {.fd = descriptor, .events = POLLIN, .revents = 0};
  const int ended = ::poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(timeout)));
  ::close(descriptor);
  if (ended != 1) {
    ::kill(state.pid, SIGKILL);
  }
  int status = 0;
  ::waitpid(state.pid, &status, 0);
  state.reaped = true;
  if (ended == 1) {
    state.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  // What the rank said last has been read once its end of the channel is seen.
  WaitUntil(absl::Seconds(10),
            [&state](const Rank& candidate) { return &candidate != &state || candidate.closed; });
  return state.exit_code;
}

RankRecord FakeAgent::record(int rank) {
  MutexLock lock(&mutex_);
  return ranks_[rank]->record;
}

}  // namespace lasp::worker
