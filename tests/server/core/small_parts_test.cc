// Leases, the ledger of requests, the registry of workers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lasp/v1/training_job_service.pb.h"
#include "server/lease_table.h"
#include "server/request_ledger.h"
#include "server/worker_registry.h"
#include "tests/server/core/fake_clock.h"

namespace lasp::server {
namespace {

constexpr SlotKind kCpu = lasp::v1::Slot::KIND_CPU;
constexpr SlotKind kGpu = lasp::v1::Slot::KIND_GPU;

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(LeaseTableTest, LeasesRunOutUnlessRenewed) {
  testing::FakeClock clock;
  LeaseTable leases(&clock, absl::Seconds(9));
  const auto a = leases.Grant("a");
  leases.Grant("b");
  clock.Advance(absl::Seconds(9));
  EXPECT_THAT(leases.Expired(), IsEmpty());
  a->Renew(clock);
  clock.Advance(absl::Seconds(1));
  EXPECT_THAT(leases.Expired(), ElementsAre("b"));
  leases.RenewAll();
  EXPECT_THAT(leases.Expired(), IsEmpty());
  clock.Advance(absl::Seconds(10));
  EXPECT_THAT(leases.Expired(), ElementsAre("a", "b"));
  leases.Revoke("a");
  leases.Revoke("b");
  EXPECT_THAT(leases.Expired(), IsEmpty());
}

TEST(LeaseTableTest, ALeaseRenewedInTimeIsNotRevokedAsExpired) {
  testing::FakeClock clock;
  LeaseTable leases(&clock, absl::Seconds(9));
  leases.Grant("a");
  clock.Advance(absl::Seconds(10));
  EXPECT_THAT(leases.Expired(), ElementsAre("a"));
  const auto again = leases.Grant("a");
  EXPECT_FALSE(leases.RevokeExpired("a"));
  clock.Advance(absl::Seconds(8));
  again->Renew(clock);
  clock.Advance(absl::Seconds(8));
  EXPECT_THAT(leases.Expired(), IsEmpty()) << "the lease that the agent holds is not the table's";
  clock.Advance(absl::Seconds(2));
  EXPECT_TRUE(leases.RevokeExpired("a"));
  EXPECT_FALSE(leases.RevokeExpired("a"));
}

TEST(RequestLedgerTest, FingerprintsAreOfTheContent) {
  lasp::v1::CreateTrainingJobRequest a;
  lasp::v1::CreateTrainingJobRequest b;
  for (int i = 0; i < 20; ++i) {
    (*a.mutable_training_job()->mutable_labels())["k" + std::to_string(i)] = "v";
    (*b.mutable_training_job()->mutable_labels())["k" + std::to_string(19 - i)] = "v";
  }
  EXPECT_EQ(Fingerprint(a), Fingerprint(b));
  b.set_parent("projects/other");
  EXPECT_NE(Fingerprint(a), Fingerprint(b));
}

TEST(RequestLedgerTest, RequestsExpire) {
  RequestLedger ledger;
  const absl::Time start = absl::FromUnixSeconds(1'000);
  for (int i = 0; i < 10; ++i) {
    PutRequest request;
    request.key = std::to_string(i);
    request.expire_time = start + absl::Seconds(i % 5);
    ledger.Add(request);
  }
  EXPECT_FALSE(ledger.Expire(start - absl::Seconds(1)));
  EXPECT_TRUE(ledger.Expire(start + absl::Seconds(1)));
  EXPECT_EQ(ledger.size(), 6);
  EXPECT_EQ(ledger.Find("0"), nullptr);
  EXPECT_NE(ledger.Find("2"), nullptr);
}

TEST(WorkerRegistryTest, SlotsAreHeldByFence) {
  testing::FakeClock clock;
  LeaseTable leases(&clock, absl::Seconds(9));
  WorkerRegistry registry;
  WorkerRecord* worker = registry.FindOrAdd("a");
  lasp::v1::Hello hello;
  hello.set_incarnation("i");
  hello.add_slots()->set_index(4);
  hello.add_slots()->set_index(7);
  auto session = std::make_shared<AgentSession>("a", leases.Grant("a"), nullptr);
  worker->Register(hello, session, leases.Grant("a"), clock.Now());
  registry.Touch(worker);
  EXPECT_EQ(registry.Capacity().cpu, 2);
  SlotHolder holder;
  holder.uid = "u";
  holder.generation = 3;
  EXPECT_EQ(worker->Claim(kCpu, holder), 4);
  registry.Touch(worker);
  EXPECT_EQ(registry.Slots(kCpu).total(), 1);
  lasp::v1::Fence fence;
  fence.set_uid("u");
  fence.set_generation(2);
  EXPECT_FALSE(worker->Release(fence));
  fence.set_generation(3);
  // The same holder after a second Hello; a slot that the agent no longer has is forgotten.
  worker->Register(hello, session, leases.Grant("a"), clock.Now());
  EXPECT_EQ(worker->free_slots(kCpu), 1);
  EXPECT_TRUE(worker->Release(fence));
  EXPECT_FALSE(worker->Release(fence));
  EXPECT_EQ(worker->free_slots(kCpu), 2);
  worker->drain_requested = true;
  registry.Touch(worker);
  EXPECT_EQ(registry.Capacity().cpu, 0);
  EXPECT_EQ(worker->MakeView()->worker.state(), lasp::v1::Worker::STATE_DRAINED);
  EXPECT_FALSE(worker->MakeView()->left);
  worker->Lose();
  registry.Touch(worker);
  EXPECT_EQ(worker->MakeView()->worker.state(), lasp::v1::Worker::STATE_LOST);
  EXPECT_TRUE(worker->MakeView()->left);
  worker->drain_requested = false;
  EXPECT_FALSE(worker->MakeView()->left);
  worker->drain_requested = true;
  EXPECT_EQ(registry.Slots(kCpu).total(), 0);
}

TEST(WorkerRegistryTest, CountsWhatHasBeenTouched) {
  testing::FakeClock clock;
  LeaseTable leases(&clock, absl::Seconds(9));
  WorkerRegistry registry;
  lasp::v1::Hello hello;
  hello.add_slots()->set_index(0);
  hello.add_slots()->set_index(1);
  for (const char* id : {"a", "b", "c"}) {
    WorkerRecord* worker = registry.FindOrAdd(id);
    worker->Register(hello, std::make_shared<AgentSession>(id, leases.Grant(id), nullptr),
                     leases.Grant(id), clock.Now());
    registry.Touch(worker);
  }
  EXPECT_EQ(registry.Capacity().cpu, 6);
  WorkerRecord* b = registry.Find("b");
  EXPECT_EQ(registry.ByNumber(b->number()), b);
  // What a pass of the scheduler only reserves comes back.
  registry.Slots(kCpu).Take(b->number(), 2);
  EXPECT_EQ(registry.Slots(kCpu).total(), 4);
  registry.Touch(b);
  EXPECT_EQ(registry.Slots(kCpu).total(), 6);
  // A lost worker whose return is expected is capacity, but takes no rank.
  b->Lose();
  b->expected_slots.cpu = 2;
  registry.Touch(b);
  EXPECT_EQ(registry.Capacity().cpu, 6);
  EXPECT_EQ(registry.Slots(kCpu).total(), 4);
  const int number = b->number();
  registry.Touch(b);
  registry.Remove("b");
  EXPECT_EQ(registry.Capacity().cpu, 4);
  EXPECT_EQ(registry.Slots(kCpu).total(), 4);
  EXPECT_EQ(registry.FindOrAdd("d")->number(), number);
}

TEST(WorkerRegistryTest, CountsEachKindForItself) {
  testing::FakeClock clock;
  LeaseTable leases(&clock, absl::Seconds(9));
  WorkerRegistry registry;
  lasp::v1::Hello hello;
  for (int i = 0; i < 5; ++i) {
    hello.add_slots()->set_index(i);
    hello.mutable_slots(i)->set_kind(i < 2 ? kGpu : kCpu);
  }
  WorkerRecord* worker = registry.FindOrAdd("a");
  worker->Register(hello, std::make_shared<AgentSession>("a", leases.Grant("a"), nullptr),
                   leases.Grant("a"), clock.Now());
  registry.Touch(worker);
  EXPECT_EQ(registry.Capacity(), (PerKind<int>{.cpu = 3, .gpu = 2}));
  EXPECT_EQ(worker->Claim(kCpu, {.job_name = "", .uid = "u"}), 2) << "the lowest of its kind";
  EXPECT_EQ(worker->Claim(kGpu, {.job_name = "", .uid = "v"}), 0);
  EXPECT_EQ(worker->Claim(kGpu, {.job_name = "", .uid = "w"}), 1);
  registry.Touch(worker);
  EXPECT_EQ(registry.Slots(kCpu).total(), 2);
  EXPECT_EQ(registry.Slots(kGpu).total(), 0);
  worker->drain_requested = true;
  lasp::v1::Fence fence;
  fence.set_uid("u");
  EXPECT_TRUE(worker->Release(fence));
  EXPECT_EQ(worker->MakeView()->worker.state(), lasp::v1::Worker::STATE_DRAINING);
  worker->ReleaseAll();
  EXPECT_EQ(worker->MakeView()->worker.state(), lasp::v1::Worker::STATE_DRAINED);
  registry.Remove("a");
  EXPECT_EQ(registry.Capacity(), PerKind<int>());
}

}  // namespace
}  // namespace lasp::server
