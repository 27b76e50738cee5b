// Workers and their GPUs, as the real program shows and drains them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/client/commands_fixture.h"

namespace lasp::client {
namespace {

using WorkersTest = CommandsFixture;
using nlohmann::json;
using ::testing::HasSubstr;

TEST_F(WorkersTest, WorkersAreListedAndDrained) {
  lasp::v1::Worker worker;
  worker.set_name("workers/host-1");
  worker.set_state(lasp::v1::Worker::STATE_READY);
  worker.set_slot_count(2);
  worker.add_slots();
  worker.add_slots()->set_training_job("projects/default/trainingJobs/quickstart");
  worker.mutable_register_time()->set_seconds(absl::ToUnixSeconds(absl::Now()) - 1230);
  server_.PutWorker(worker);
  EXPECT_EQ(Run({"workers"}).out,
            "NAME    STATE  FREE  SLOTS  JOBS        AGE\n"
            "host-1  READY     1      2  quickstart  20m\n");
  const auto array = json::parse(Run({"workers", "-o", "json"}).out);
  EXPECT_EQ(array[0]["state"], "READY");
  EXPECT_EQ(array[0]["slots"][1]["training_job"], "projects/default/trainingJobs/quickstart");
  EXPECT_EQ(json::parse(Run({"get", "worker", "host-1", "-o", "json"}).out)["slot_count"], 2);
  EXPECT_EQ(Run({"get", "workers", "-o", "name"}).out, "workers/host-1\n");
  EXPECT_EQ(Run({"drain", "worker/host-1"}).out, "worker/host-1 DRAINING\n");
  EXPECT_EQ(server_.last_drain().name(), "workers/host-1");
  EXPECT_EQ(Run({"drain", "host-1", "--undo"}).out, "worker/host-1 READY\n");
  EXPECT_EQ(Run({"drain", "host-2"}).exit_code, 3);
  EXPECT_EQ(Run({"drain"}).exit_code, 2);
}

TEST_F(WorkersTest, WorkersShowTheirGpus) {
  lasp::v1::Worker worker;
  worker.set_name("workers/gpu-1");
  worker.set_state(lasp::v1::Worker::STATE_READY);
  worker.set_slot_count(3);
  for (int i = 0; i < 3; ++i) {
    auto* slot = worker.add_slots();
    slot->set_index(i);
    slot->set_kind(i < 2 ? lasp::v1::Slot::KIND_GPU : lasp::v1::Slot::KIND_CPU);
    if (i < 2) {
      slot->mutable_gpu()->set_name("NVIDIA H200");
      slot->mutable_gpu()->set_uuid(absl::StrCat("GPU-", i));
      slot->mutable_gpu()->set_pci_bus_id(absl::StrCat("00000000:1", i, ":00.0"));
      slot->mutable_gpu()->set_memory_bytes(150'754'820'096);
      auto* link = slot->mutable_gpu()->add_links();
      link->set_slot(1 - i);
      link->set_nvlink_count(18);
    }
  }
  worker.mutable_slots(1)->set_training_job("projects/default/trainingJobs/quickstart");
  worker.mutable_register_time()->set_seconds(absl::ToUnixSeconds(absl::Now()) - 1230);
  server_.PutWorker(worker);
  EXPECT_EQ(Run({"workers"}).out,
            "NAME   STATE  FREE  SLOTS  GPUS                       JOBS        AGE\n"
            "gpu-1  READY     2      3  2 x NVIDIA H200 (140 GiB)  quickstart  20m\n");
  const std::string wide = Run({"workers", "-o", "wide"}).out;
  EXPECT_THAT(wide, HasSubstr("  GPU,CPU  "));
  EXPECT_THAT(wide, HasSubstr("\n\nWORKER  SLOT  GPU           MEMORY  BUS               UUID   "
                              "NVLINKS TO SLOTS  JOB\n"
                              "gpu-1      0  NVIDIA H200  140 GiB  00000000:10:00.0  GPU-0  18->1 "
                              "            -\n"
                              "gpu-1      1  NVIDIA H200  140 GiB  00000000:11:00.0  GPU-1  18->0 "
                              "            quickstart\n"));
  const auto slot = json::parse(Run({"get", "worker", "gpu-1", "-o", "json"}).out)["slots"][0];
  EXPECT_EQ(slot["kind"], "GPU");
  EXPECT_EQ(slot["gpu"]["uuid"], "GPU-0");
  EXPECT_EQ(slot["gpu"]["memory_bytes"], 150'754'820'096);
  EXPECT_EQ(slot["gpu"]["links"][0]["nvlink_count"], 18);
}

}  // namespace
}  // namespace lasp::client
