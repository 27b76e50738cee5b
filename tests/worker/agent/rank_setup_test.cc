// What the supervisor hands to a rank, and what it withholds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/rank_exit_code.h"
#include "tests/worker/agent/rank_orders.h"
#include "tests/worker/agent/supervisor_fixture.h"

namespace lasp::worker {
namespace {

using testing::Alone;
using testing::FenceOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Options;

class RankSetupTest : public testing::SupervisorFixture {};

TEST_F(RankSetupTest, ChoosesWhatARankInherits) {
  SupervisorOptions options = Options();
  options.environment = {"PATH=/bin"};
  for (const char* name : {"LASP_TOKEN", "LASP_SERVER", "UNRELATED", "LD_PRELOAD", "NCCL", "PATH2",
                           "GLIBC_TUNABLES", "AWS_SECRET_ACCESS_KEY", "HOME", "TMPDIR"}) {
    options.environment.push_back(absl::StrCat(name, "=forbidden"));
  }
  for (const char* name :
       {"NCCL_DEBUG", "CUDA_CACHE_PATH", "OMP_PROC_BIND", "OPENBLAS_CORETYPE", "LD_LIBRARY_PATH"}) {
    options.environment.push_back(absl::StrCat(name, "=allowed"));
  }
  Restart(options);
  supervisor_->Launch(Alone("env", 1, 0, 1, {"print=env"}));
  recorder_.WaitForEnds(1);
  const std::string environment = LogOf(FenceOf("env", 1, 0));
  for (const char* entry :
       {"env OMP_NUM_THREADS=3\n", "env OPENBLAS_NUM_THREADS=3\n", "env OMP_WAIT_POLICY=passive\n",
        "env NCCL_DEBUG=allowed\n", "env CUDA_CACHE_PATH=allowed\n", "env OMP_PROC_BIND=allowed\n",
        "env OPENBLAS_CORETYPE=allowed\n", "env LD_LIBRARY_PATH=allowed\n", "env PATH=/bin\n"}) {
    EXPECT_THAT(environment, HasSubstr(entry));
  }
  EXPECT_THAT(environment, Not(HasSubstr("forbidden")));

  supervisor_->Launch(Alone("fds", 1, 0, 1, {"print=fds"}));
  recorder_.WaitForEnds(2);
  const std::string descriptors = LogOf(FenceOf("fds", 1, 0));
  for (const char* entry : {"fd 0 /dev/null", "fd 1 pipe:", "fd 2 pipe:", "fd 3 socket:"}) {
    EXPECT_THAT(descriptors, HasSubstr(entry));
  }
  // 4 is the folder the rank reads; sanitizers open nothing.
  EXPECT_THAT(descriptors, Not(HasSubstr("fd 5 ")));
}

TEST_F(RankSetupTest, GivesARankNoRightsThatItDoesNotNeed) {
  supervisor_->Launch(Alone("rights", 1, 0, 1, {"print=rights"}));
  EXPECT_EQ(recorder_.WaitForEnds(1)[0].exit_code(), kRankDone);
  const std::string rights = LogOf(FenceOf("rights", 1, 0));
  for (const char* entry : {"status NoNewPrivs:\t1\n", "status Umask:\t0077\n", "dumpable 0\n"}) {
    EXPECT_THAT(rights, HasSubstr(entry));
  }
}

TEST_F(RankSetupTest, GivesARankOnAGpuThatGpuAlone) {
  setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3", 1);
  setenv("NCCL_NVLS_ENABLE", "2", 1);
  SupervisorOptions options = Options();
  options.environment = OwnEnvironment();
  options.rank_binary = "/nowhere/lasp-rank";
  options.cuda_rank_binary = FAKE_RANK_BINARY;
  options.slots[2].set_kind(lasp::v1::Slot::KIND_GPU);
  options.slots[2].mutable_gpu()->set_uuid("GPU-two");
  Restart(options);
  supervisor_->Launch(Alone("gpu", 1, 2, 1, {"print=env"}));
  EXPECT_EQ(recorder_.WaitForEnds(1)[0].exit_code(), 0);
  const std::string environment = LogOf(FenceOf("gpu", 1, 0));
  EXPECT_THAT(environment, HasSubstr("env CUDA_VISIBLE_DEVICES=GPU-two\n"));
  EXPECT_THAT(environment, HasSubstr("env NCCL_NVLS_ENABLE=0\n"));
  EXPECT_THAT(environment, Not(HasSubstr("0,1,2,3")));
  EXPECT_THAT(environment, Not(HasSubstr("NCCL_NVLS_ENABLE=2")));

  // A CPU slot runs the other program, which sees no GPU.
  supervisor_->Launch(Alone("cpu", 1, 1, 1));
  EXPECT_THAT(recorder_.WaitForEnds(2)[1].status().message(), HasSubstr("/nowhere/lasp-rank"));
  options.rank_binary = FAKE_RANK_BINARY;
  Restart(options);
  supervisor_->Launch(Alone("plain", 1, 1, 1, {"print=env"}));
  recorder_.WaitForEnds(3);
  EXPECT_THAT(LogOf(FenceOf("plain", 1, 0)), Not(HasSubstr("CUDA_VISIBLE_DEVICES")));
}

TEST_F(RankSetupTest, CarriesTheGemmRecordBothWays) {
  supervisor_->Launch(Alone("new", 1, 0, 1, {"record=chosen"}));
  recorder_.WaitForEnds(1);
  EXPECT_EQ(recorder_.last_ready().gemm_record(), "chosen");
  lasp::v1::Assignment again = Alone("again", 2, 0, 1, {"record=another"});
  again.set_gemm_record("chosen");
  supervisor_->Launch(again);
  recorder_.WaitForEnds(2);
  EXPECT_EQ(recorder_.last_ready().gemm_record(), "chosen");
  EXPECT_EQ(recorder_.last_ready().fence().generation(), 2);
}

TEST_F(RankSetupTest, CarriesCheckpointsBothWays) {
  SupervisorOptions options = Options();
  options.checkpoint_root = "/root-folder";
  Restart(options);
  lasp::v1::Assignment assignment = Alone("saves", 3, 1, 5, {"save_at=5"});
  assignment.set_checkpoint_folder("default/uid");
  assignment.mutable_restore_from()->set_folder("default/uid/step-7.gen-2");
  supervisor_->Launch(assignment);
  recorder_.WaitForEnds(1);
  // Told before the end, with the fence of what was started.
  const std::vector<lasp::v1::ShardWritten> shards = recorder_.shards();
  ASSERT_EQ(shards.size(), 1U);
  EXPECT_EQ(shards[0].step(), 5);
  EXPECT_EQ(shards[0].fence().generation(), 3);
  EXPECT_EQ(shards[0].fence().uid(), assignment.fence().uid());
  EXPECT_EQ(shards[0].shard().file(), "/root-folder default/uid default/uid/step-7.gen-2");
  EXPECT_EQ(recorder_.checkpoints(), 1);
}

TEST_F(RankSetupTest, TellsARankWhichProtocolItsPeersSpeak) {
  lasp::v1::Assignment assignment = Alone("meets", 1, 0, 1, {"print=setup"});
  assignment.set_peers_protocol_version(7);
  supervisor_->Launch(assignment);
  EXPECT_EQ(recorder_.WaitForEnds(1)[0].exit_code(), kRankDone);
  EXPECT_THAT(LogOf(FenceOf("meets", 1, 0)), HasSubstr("peers speak 7\n"));
}

}  // namespace
}  // namespace lasp::worker
