// Communication among two GPUs, over NCCL and by copy engines.
#include "worker/parallel/nccl_world.h"

#include <gtest/gtest.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <ctime>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"
#include "tests/support/gpu.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/parallel/attention_layer.h"
#include "tests/worker/parallel/gpu_rank_processes.h"
#include "tests/worker/parallel/sequence_parallel_methods.h"
#include "worker/device/arena.h"
#include "worker/device/cuda_backend.h"
#include "worker/parallel/peer_communicator.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::AnyOf;
using ::testing::HasSubstr;

// The ranks are processes, which this one, having used CUDA itself, could not start.
class NcclWorldTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    const int gpus = GpusSeenByAChild();
    if (gpus < 2) {
      ASSERT_FALSE(::lasp::testing::GpuIsRequired())
          << "LASP_REQUIRE_GPU=1, but there are " << gpus << " GPUs of 2";
      GTEST_SKIP() << "there are " << gpus << " GPUs of 2";
    }
  }

  static std::vector<absl::StatusOr<std::string>> Run(
      GpuRanksOptions options, const std::function<absl::StatusOr<std::string>(LocalRank&)>& body) {
    options.peer_copies = GetParam();
    return RunGpuRankProcesses(options, [&](LocalRank& rank) -> absl::StatusOr<std::string> {
      LASP_ASSIGN_OR_RETURN(std::string result, body(rank));
      if (HasFailure()) {
        return absl::InternalError("an expectation was not met, see above");
      }
      return result;
    });
  }

  static void ExpectAll(const GpuRanksOptions& options,
                        const std::function<absl::Status(LocalRank&)>& body) {
    for (const auto& result : Run(options, [&](LocalRank& rank) -> absl::StatusOr<std::string> {
           LASP_RETURN_IF_ERROR(body(rank));
           return "";
         })) {
      LASP_EXPECT_OK(result.status());
    }
  }

 private:
  static int GpusSeenByAChild() {
    const pid_t child = fork();
    if (child == 0) {
      _exit(::lasp::testing::GpuCount());
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
  }
};

// Something that one rank awaits and another does, in memory that processes share.
class SharedSignal {
 public:
  SharedSignal()
      : semaphore_(static_cast<sem_t*>(mmap(nullptr, sizeof(sem_t), PROT_READ | PROT_WRITE,
                                            MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    EXPECT_EQ(sem_init(semaphore_, /*pshared=*/1, 0), 0);
  }

  ~SharedSignal() { munmap(semaphore_, sizeof(sem_t)); }

  SharedSignal(const SharedSignal&) = delete;
  SharedSignal& operator=(const SharedSignal&) = delete;

  void Give() { sem_post(semaphore_); }

  // For a minute at most.
  void Await() {
    timespec deadline = {};
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 60;
    EXPECT_EQ(sem_timedwait(semaphore_, &deadline), 0);
  }

 private:
  sem_t* const semaphore_;
};

// What has gone by copy engines: that it is not left to NCCL.
int64_t CopiedBytes(const Communicator& group) {
  const auto* const peers = dynamic_cast<const PeerCommunicator*>(&group);
  return peers == nullptr ? 0 : peers->copied_bytes();
}

// A tensor of fp32 on the device.
class DeviceVector {
 public:
  DeviceVector(Backend* backend, const std::vector<float>& values) : backend_(*backend) {
    const auto count = static_cast<int64_t>(values.size());
    arena_ = Arena::Create(backend_, count * 4 + 256).value();
    tensor_ = arena_.Take(MemoryUse::kWorkspace, DType::kFloat32, 1, count);
    backend_.CopyFromHost(values.data(), tensor_);
  }

  Tensor tensor() const { return tensor_; }

  std::vector<float> Read() const {
    std::vector<float> values(static_cast<size_t>(tensor_.count()));
    backend_.CopyToHost(tensor_, values.data());
    return values;
  }

 private:
  Backend& backend_;
  Arena arena_;
  Tensor tensor_;
};

TEST_P(NcclWorldTest, WhatIsSentAfterAKernelIsWhatTheKernelWrote) {
  ExpectAll({.sp_size = 2}, [](LocalRank& rank) -> absl::Status {
    DeviceVector data(rank.backend, std::vector<float>(1 << 20, 0));
    LASP_RETURN_IF_ERROR(rank.sp->Register(data.tensor()));
    const int64_t sent_before = rank.sp->counters().sent_bytes;
    for (int round = 1; round <= 20; ++round) {
      if (rank.sp->rank() == 0) {
        rank.backend->Fill(round, data.tensor());
        LASP_RETURN_IF_ERROR(rank.sp->SendInto(data.tensor(), 1, data.tensor()).Wait());
      } else {
        Operation received = rank.sp->ReceiveInto(data.tensor(), 0);
        LASP_RETURN_IF_ERROR(received.Wait());
        rank.backend->Axpy(1, data.tensor(), data.tensor());
        const std::vector<float> values = data.Read();
        EXPECT_EQ(values.front(), 2 * round);
        EXPECT_EQ(values.back(), 2 * round);
      }
    }
    EXPECT_EQ(rank.sp->counters().sent_bytes - sent_before,
              rank.sp->rank() == 0 ? 20 * (4 << 20) : 0);
    EXPECT_EQ(CopiedBytes(*rank.sp), GetParam() && rank.sp->rank() == 0 ? 20 * (4 << 20) : 0);
    return absl::OkStatus();
  });
}

TEST_P(NcclWorldTest, WhatRunsBetweenAReceiveAndASendIsInItsTurn) {
  ExpectAll({.sp_size = 2}, [](LocalRank& rank) -> absl::Status {
    DeviceVector data(rank.backend, std::vector<float>(4096, 3));
    if (rank.sp->rank() == 0) {
      Operation added = rank.sp->Run([&] {
        rank.backend->Axpy(2, data.tensor(), data.tensor());
        return absl::OkStatus();
      });
      LASP_RETURN_IF_ERROR(rank.sp->Send(data.tensor(), 1).Wait());
      return added.Wait();
    }
    LASP_RETURN_IF_ERROR(rank.sp->Receive(data.tensor(), 0).Wait());
    EXPECT_EQ(data.Read(), std::vector<float>(4096, 9));
    return absl::OkStatus();
  });
}

TEST_P(NcclWorldTest, SumsAreTheSameBitsOnEveryRankAndInEveryRun) {
  std::vector<std::string> runs;
  for (int run = 0; run < 2; ++run) {
    const auto body = [&](LocalRank& rank) -> absl::StatusOr<std::string> {
      std::vector<float> values(3'000'001);
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = std::sin(static_cast<float>(i + 7 * static_cast<size_t>(rank.grid.rank())));
      }
      DeviceVector data(rank.backend, values);
      LASP_RETURN_IF_ERROR(rank.world->AllReduceSum(data.tensor()).Wait());
      const std::vector<float> sums = data.Read();
      EXPECT_NEAR(sums[1], std::sin(1.0) + std::sin(8.0), 1e-6);
      return std::string(reinterpret_cast<const char*>(sums.data()), sums.size() * sizeof(float));
    };
    for (const auto& result : Run({.sp_size = 1, .dp_size = 2}, body)) {
      LASP_ASSERT_OK(result.status());
      runs.push_back(*result);
    }
  }
  for (const std::string& bits : runs) {
    EXPECT_TRUE(bits == runs[0]);
  }
}

TEST_P(NcclWorldTest, ScatteredSumsGatherToTheWholeSum) {
  ExpectAll({.sp_size = 1, .dp_size = 2}, [](LocalRank& rank) -> absl::Status {
    const int me = rank.world->rank();
    // More than is staged at a time.
    constexpr int64_t kMost = 17'000'000;
    DeviceVector registered(rank.backend, std::vector<float>(2 * kMost));
    LASP_RETURN_IF_ERROR(rank.world->Register(registered.tensor()));
    for (const int64_t part : {int64_t{1}, int64_t{64}, int64_t{1'000'003}, kMost}) {
      std::vector<float> values(static_cast<size_t>(2 * part));
      std::vector<float> sums(values.size());
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(i % 1000) + static_cast<float>(me) * 1e4F;
        sums[i] = 2 * static_cast<float>(i % 1000) + 1e4F;
      }
      DeviceVector apart(rank.backend, std::vector<float>(static_cast<size_t>(part)));
      const Tensor whole = registered.tensor().Columns(0, 2 * part).Reshape(1, 2 * part);
      const auto read = [&] {
        std::vector<float> now(values.size());
        rank.backend->CopyToHost(whole, now.data());
        return now;
      };
      rank.backend->CopyFromHost(values.data(), whole);
      LASP_RETURN_IF_ERROR(rank.world->ReduceScatterSum(whole, apart.tensor()).Wait());
      EXPECT_EQ(apart.Read(),
                std::vector<float>(sums.begin() + me * part, sums.begin() + (me + 1) * part));
      EXPECT_EQ(read(), values);
      const Tensor mine = whole.Columns(me * part, part).Reshape(1, part);
      LASP_RETURN_IF_ERROR(rank.world->ReduceScatterSum(whole, mine).Wait());
      LASP_RETURN_IF_ERROR(rank.world->AllGather(mine, whole).Wait());
      EXPECT_EQ(read(), sums);
    }
    return rank.backend->Synchronize();
  });
}

// Both ways at once, into memory that is registered and into other.
TEST_P(NcclWorldTest, MessagesOfAnySizeCrossEachOther) {
  ExpectAll({.sp_size = 2}, [](LocalRank& rank) -> absl::Status {
    const int me = rank.sp->rank();
    constexpr int64_t kMost = 2'000'001;
    DeviceVector registered(rank.backend, std::vector<float>(2 * kMost));
    LASP_RETURN_IF_ERROR(rank.sp->Register(registered.tensor()));
    for (const size_t count : {size_t{1}, size_t{262'143}, size_t{262'145}, size_t{kMost}}) {
      std::vector<float> values(count);
      for (size_t i = 0; i < count; ++i) {
        values[i] = static_cast<float>(i % 1000) + static_cast<float>(me) * 1e4F;
      }
      DeviceVector own(rank.backend, values);
      DeviceVector others(rank.backend, std::vector<float>(count, -1));
      const Tensor place = registered.tensor().Columns(kMost, static_cast<int64_t>(count));
      for (const Tensor here : {others.tensor(), place}) {
        const auto send = [&] { return rank.sp->SendInto(own.tensor(), 1 - me, here); };
        const auto receive = [&] { return rank.sp->ReceiveInto(here, 1 - me); };
        Operation first = me == 0 ? send() : receive();
        Operation second = me == 0 ? receive() : send();
        LASP_RETURN_IF_ERROR(first.Wait());
        LASP_RETURN_IF_ERROR(second.Wait());
        std::vector<float> expected = values;
        for (float& value : expected) {
          value += me == 0 ? 1e4F : -1e4F;
        }
        std::vector<float> read(count);
        rank.backend->CopyToHost(here, read.data());
        EXPECT_EQ(read, expected) << count;
      }
    }
    return absl::OkStatus();
  });
}

// Parts of registered memory, of sizes that are no multiple of the ranks.
TEST_P(NcclWorldTest, RegisteredMemoryIsSummedInPlace) {
  ExpectAll({.sp_size = 1, .dp_size = 2}, [](LocalRank& rank) -> absl::Status {
    // More than is staged at once.
    constexpr int64_t kCount = 40'000'003;
    std::vector<float> values(kCount);
    const int me = rank.grid.rank();
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = std::sin(static_cast<float>(i) + 7 * static_cast<float>(me));
    }
    DeviceVector data(rank.backend, values);
    LASP_RETURN_IF_ERROR(rank.world->Register(data.tensor()));
    // From the end to the beginning, as gradients come, some while the next ones are written.
    std::vector<Operation> sums;
    for (const auto& [begin, size] : std::vector<std::pair<int64_t, int64_t>>{
             {kCount - 1, 1}, {4'000'000, kCount - 1 - 4'000'000}, {0, 4'000'000}}) {
      rank.backend->Axpy(1, data.tensor().Columns(begin, size), data.tensor().Columns(begin, size));
      sums.push_back(rank.world->AllReduceSum(data.tensor().Columns(begin, size)));
    }
    LASP_RETURN_IF_ERROR(sums.back().Wait());
    EXPECT_EQ(CopiedBytes(*rank.world), GetParam() ? kCount * 4 : 0);
    const std::vector<float> read = data.Read();
    for (size_t i = 0; i < read.size(); ++i) {
      const float first = 2 * std::sin(static_cast<float>(i));
      const float second = 2 * std::sin(static_cast<float>(i) + 7);
      if (read[i] != first + second) {
        ADD_FAILURE() << "element " << i << " is " << read[i] << ", not " << first + second;
        break;
      }
    }
    return absl::OkStatus();
  });
}

// Into memory that is registered and into other.
TEST_P(NcclWorldTest, AnExchangeAndAGatherGoBothWaysAtOnce) {
  ExpectAll({.sp_size = 2}, [](LocalRank& rank) -> absl::Status {
    const int me = rank.sp->rank();
    constexpr int64_t kCount = 300'001;
    DeviceVector registered(rank.backend, std::vector<float>(4 * kCount));
    LASP_RETURN_IF_ERROR(rank.sp->Register(registered.tensor()));
    const int64_t sent_before = rank.sp->counters().sent_bytes;
    const auto filled = [](int with) {
      return std::vector<float>(kCount, static_cast<float>(with));
    };
    for (int round = 0; round < 10; ++round) {
      DeviceVector first(rank.backend, filled(10 * round + me));
      DeviceVector second(rank.backend, filled(100 + 10 * round + me));
      DeviceVector elsewhere(rank.backend, std::vector<float>(2 * kCount));
      for (const Tensor here : {elsewhere.tensor(), registered.tensor()}) {
        const Tensor one = here.Columns(0, kCount);
        const Tensor two = here.Columns(kCount, kCount);
        LASP_RETURN_IF_ERROR(
            rank.sp
                ->Exchange(
                    {{.peer = 1 - me, .send = first.tensor(), .there = one, .receive = one},
                     {.peer = 1 - me, .send = second.tensor(), .there = two, .receive = two}})
                .Wait());
        std::vector<float> read(kCount);
        rank.backend->CopyToHost(one, read.data());
        EXPECT_EQ(read, filled(10 * round + 1 - me));
        rank.backend->CopyToHost(two, read.data());
        EXPECT_EQ(read, filled(100 + 10 * round + 1 - me));
        // Not where the exchange put it.
        const Tensor whole = here.Columns(0, 2 * kCount).Reshape(2, kCount);
        rank.backend->Fill(-1, here.Columns(0, 2 * kCount));
        const Tensor mine = whole.Rows(me, 1);
        rank.backend->Copy(second.tensor(), mine);
        LASP_RETURN_IF_ERROR(
            rank.sp->AllGather(round % 2 == 0 ? mine : second.tensor(), whole).Wait());
        for (const int other : {0, 1}) {
          rank.backend->CopyToHost(whole.Rows(other, 1), read.data());
          EXPECT_EQ(read, filled(100 + 10 * round + other));
        }
      }
    }
    EXPECT_EQ(CopiedBytes(*rank.sp), GetParam() ? int64_t{10} * 3 * kCount * 4 : 0);
    EXPECT_EQ(rank.sp->counters().sent_bytes - sent_before, int64_t{20} * 3 * kCount * 4);
    return absl::OkStatus();
  });
}

// The states in the same bits, and all tokens of half the heads to the rounding of bf16.
TEST_P(NcclWorldTest, EveryMethodComputesALayerAsLaspDoes) {
  ExpectAll({.sp_size = 2}, [](LocalRank& rank) -> absl::Status {
    using Spec = lasp::v1::SequenceParallelSpec;
    const AttentionShape shape{.batch = 2,
                               .tokens = 1000,
                               .heads = 4,
                               .head_size = 64,
                               .lrpe = false,
                               .slopes = {},
                               .theta = {}};
    std::vector<std::vector<float>> expected;
    // All live to the end: the other rank may have their memory in use.
    std::vector<std::unique_ptr<SequenceParallel>> attentions;
    std::vector<std::unique_ptr<AttentionLayer>> layers;
    for (const SequenceParallelMethod& method : SequenceParallelMethods()) {
      SCOPED_TRACE(method.name);
      auto attention = method.create(rank.backend, rank.sp);
      if (attention == nullptr) {
        EXPECT_EQ(method.method, Spec::METHOD_RING_ATTENTION);
        continue;
      }
      attentions.push_back(std::move(attention));
      LASP_ASSIGN_OR_RETURN(auto made,
                            AttentionLayer::Create(shape, attentions.back().get(), rank.backend));
      layers.push_back(std::move(made));
      AttentionLayer* const layer = layers.back().get();
      LASP_RETURN_IF_ERROR(rank.sp->Register(layer->whole()));
      const int64_t sent_before = rank.sp->counters().sent_bytes;
      const int64_t copied_before = CopiedBytes(*rank.sp);
      for (int round = 0; round < 3; ++round) {
        LASP_RETURN_IF_ERROR(layer->Forward());
        LASP_RETURN_IF_ERROR(layer->Backward());
      }
      LASP_RETURN_IF_ERROR(attentions.back()->Finish());
      EXPECT_EQ(CopiedBytes(*rank.sp) - copied_before,
                GetParam() ? rank.sp->counters().sent_bytes - sent_before : 0);
      std::vector<std::vector<float>> actual;
      for (const Tensor& tensor :
           {layer->output(), layer->gradients().q, layer->gradients().k, layer->gradients().v}) {
        DeviceVector wide(rank.backend, std::vector<float>(static_cast<size_t>(tensor.count())));
        rank.backend->Convert(tensor.Reshape(1, tensor.count()), wide.tensor());
        actual.push_back(wide.Read());
      }
      if (method.method == Spec::METHOD_LASP) {
        expected = actual;
      } else if (method.method == Spec::METHOD_ULYSSES) {
        for (size_t i = 0; i < actual.size(); ++i) {
          double difference = 0;
          double scale = 0;
          for (size_t j = 0; j < actual[i].size(); ++j) {
            difference += std::pow(actual[i][j] - expected[i][j], 2);
            scale += std::pow(expected[i][j], 2);
          }
          EXPECT_LE(std::sqrt(difference / scale), 1e-2) << "tensor " << i;
        }
      } else {
        EXPECT_EQ(actual, expected);
      }
    }
    LASP_RETURN_IF_ERROR(rank.backend->Synchronize());
    return rank.sp->Barrier().Wait();
  });
}

TEST_P(NcclWorldTest, APeerThatDoesNotComeEndsTheWaitWithAReason) {
  const absl::Duration begin = SystemClock().Monotonic();
  SharedSignal waited;
  const auto results = Run({.sp_size = 2, .timeout = absl::Seconds(5)},
                           [&](LocalRank& rank) -> absl::StatusOr<std::string> {
                             DeviceVector data(rank.backend, std::vector<float>(4096, 3));
                             LASP_RETURN_IF_ERROR(rank.sp->Register(data.tensor()));
                             if (rank.sp->rank() == 1) {
                               // Hangs, as a rank does whose host has gone: it sends nothing and
                               // closes nothing.
                               waited.Await();
                               return absl::AbortedError("this one leaves");
                             }
                             LASP_RETURN_IF_ERROR(rank.sp->ReceiveInto(data.tensor(), 1).Wait());
                             // The abort lets the kernel go that would wait for ever.
                             absl::Status status = rank.backend->Synchronize();
                             status.Update(rank.world->Barrier().Wait());
                             waited.Give();
                             LASP_RETURN_IF_ERROR(status);
                             return "";
                           });
  EXPECT_THAT(results[1].status().message(), HasSubstr("this one leaves"));
  EXPECT_THAT(results[0].status().message(),
              AnyOf(HasSubstr("DEADLINE_EXCEEDED"), HasSubstr("UNAVAILABLE")));
  EXPECT_LT(SystemClock().Monotonic() - begin, absl::Seconds(40));
}

INSTANTIATE_TEST_SUITE_P(Over, NcclWorldTest, ::testing::Bool(),
                         [](const auto& over) { return over.param ? "CopyEngines" : "Nccl"; });

TEST(NcclIdTest, MulticastMustBeOff) {
  ASSERT_EQ(setenv("NCCL_NVLS_ENABLE", "2", 1), 0);
  EXPECT_THAT(MakeNcclId().status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("NCCL_NVLS_ENABLE is 2")));
  ASSERT_EQ(unsetenv("NCCL_NVLS_ENABLE"), 0);
  EXPECT_THAT(MakeNcclId().status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not set")));
}

}  // namespace
}  // namespace lasp::worker
