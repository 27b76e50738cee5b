// What an agent sends the coordinator, any messages in any order: its decisions hold together, and
// another agent's ranks are left alone.
#include "lasp/v1/worker_service.pb.h"
#include "server/hello_check.h"
#include "server/log_intake.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/server/core/engine_harness.h"

namespace {

using lasp::server::EngineHarness;
using lasp::v1::ConnectRequest;
using lasp::v1::Fence;

// Fences of zeros name the victim's rank: no mutation guesses a uid.
void Aim(const Fence& target, Fence* fence) {
  if (fence->uid().empty()) {
    fence->set_uid(target.uid());
  }
  if (fence->training_job().empty()) {
    fence->set_training_job(target.training_job());
  }
  if (fence->generation() == 0) {
    fence->set_generation(target.generation());
  }
}

void AimAll(const Fence& target, ConnectRequest* message) {
  if (message->has_hello()) {
    for (auto& rank : *message->mutable_hello()->mutable_ranks()) {
      Aim(target, rank.mutable_fence());
    }
  }
  if (message->has_heartbeat()) {
    for (auto& rank : *message->mutable_heartbeat()->mutable_ranks()) {
      Aim(target, rank.mutable_fence());
    }
  }
  if (message->has_rank_address()) {
    Aim(target, message->mutable_rank_address()->mutable_fence());
  }
  if (message->has_rank_ready()) {
    Aim(target, message->mutable_rank_ready()->mutable_fence());
  }
  if (message->has_step_reports()) {
    Aim(target, message->mutable_step_reports()->mutable_fence());
  }
  if (message->has_log_chunk()) {
    Aim(target, message->mutable_log_chunk()->mutable_fence());
  }
  if (message->has_rank_exited()) {
    Aim(target, message->mutable_rank_exited()->mutable_fence());
  }
}

}  // namespace

namespace lasp {

// Each message has two bytes of length before it, the low one first. Those with the high bit of the
// length set come from an agent that runs nothing.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  EngineHarness harness;
  auto* const owner = harness.AddAgent("owner", 1);
  auto* const stranger = harness.AddAgent("stranger", 0);
  const std::string name = harness.Submit("job");
  lasp::fuzz::Require(owner->ranks.size() == 1, "the job runs");
  const Fence target = owner->ranks[0].fence;
  bool owner_spoke = false;
  for (size_t at = 0; at + 2 <= size;) {
    const size_t head = data[at] | static_cast<size_t>(data[at + 1]) << 8;
    const bool foreign = (head & 0x8000) != 0;
    const size_t length = std::min(head & 0x7fff, size - at - 2);
    ConnectRequest message;
    if (!message.ParseFromArray(data + at + 2, static_cast<int>(length))) {
      break;
    }
    at += 2 + length;
    AimAll(target, &message);
    auto* const agent = foreign ? stranger : owner;
    owner_spoke = owner_spoke || !foreign;
    if (message.has_hello()) {
      // A second Hello ends a stream before the core sees it; a first one of a new stream is
      // judged.
      (void)lasp::server::CheckHello(message.hello());
      continue;
    }
    harness.Deliver(agent, std::move(message));
    harness.Pump();
  }
  harness.Advance(absl::Seconds(1));
  const auto job = harness.Get(name);
  lasp::fuzz::Require(job.name() == name, "the job is there");
  if (!owner_spoke) {
    lasp::fuzz::Require(
        job.state() == lasp::v1::TrainingJob::STATE_RUNNING && job.generation() == 1,
        "a stranger changes nothing");
  }
  return 0;
}

}  // namespace lasp
