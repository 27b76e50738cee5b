// The CPU behind the device seam: each operation forwards to the kernel of the same name. Memory,
// and what an update needs; the rest lies in the classes below.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/adamw.h"
#include "kernels/bf16_rounding.h"
#include "kernels/global_norm.h"
#include "kernels/threads.h"
#include "kernels/update_control.h"
#include "kernels/vector_ops.h"
#include "proto/rpc/status_macros.h"
#include "worker/device/backend.h"
#include "worker/device/cpu_layers.h"
#include "worker/device/cpu_tensors.h"
#include "worker/device/host_phase_clock.h"

namespace lasp::worker {
namespace {

namespace cpu = ::lasp::kernels::cpu;
using cpu_tensors::In;
using cpu_tensors::Out;

constexpr size_t kAlignment = 64;

class HostBuffer : public DeviceBuffer {
 public:
  HostBuffer(void* data, int64_t bytes) : data_(data), bytes_(bytes) {}

  ~HostBuffer() override { std::free(data_); }

  void* data() const override { return data_; }

  int64_t bytes() const override { return bytes_; }

 private:
  void* const data_;
  const int64_t bytes_;
};

// Of memory that the host sees anyway: the copy has been made when Take returns.
class CpuSnapshot : public HostSnapshot {
 public:
  explicit CpuSnapshot(std::unique_ptr<DeviceBuffer> memory) : memory_(std::move(memory)) {}

  absl::Status Take(const std::vector<Tensor>& sources) override {
    auto* to = static_cast<char*>(memory_->data());
    for (const Tensor& source : sources) {
      std::memcpy(to, source.data, static_cast<size_t>(source.bytes()));
      to += source.bytes();
    }
    return absl::OkStatus();
  }

  absl::Status HoldDevice() override { return absl::OkStatus(); }

  absl::Status Wait(absl::Duration /*timeout*/) override { return absl::OkStatus(); }

  const char* data() const override { return static_cast<const char*>(memory_->data()); }

 private:
  const std::unique_ptr<DeviceBuffer> memory_;
};

class CpuStash : public HostStash {
 public:
  CpuStash(std::unique_ptr<DeviceBuffer> memory, int64_t slot_bytes)
      : memory_(std::move(memory)), slot_bytes_(slot_bytes) {}

  absl::Status Store(int64_t slot, Tensor source) override {
    std::memcpy(At(slot), source.data, static_cast<size_t>(source.bytes()));
    return absl::OkStatus();
  }

  absl::Status Load(int64_t slot, Tensor destination) override {
    std::memcpy(destination.data, At(slot), static_cast<size_t>(destination.bytes()));
    return absl::OkStatus();
  }

  absl::Status Hold(int64_t /*slot*/) override { return absl::OkStatus(); }

 private:
  char* At(int64_t slot) const { return static_cast<char*>(memory_->data()) + slot * slot_bytes_; }

  const std::unique_ptr<DeviceBuffer> memory_;
  const int64_t slot_bytes_;
};

template <typename T>
constexpr DType TypeOf() {
  return std::is_same_v<T, double> ? DType::kFloat64 : DType::kFloat32;
}

template <typename T>
class CpuBackend : public CpuLayers<T> {
 public:
  DType activation_type() const override { return TypeOf<T>(); }

  DType accumulation_type() const override { return TypeOf<T>(); }

  // Few enough for a large vocabulary's to stay near the caches.
  int64_t logits_at_a_time() const override { return int64_t{1} << 20; }

  int64_t WorkspaceBytes(const WorkspaceShape& /*shape*/) const override { return 0; }

  void UseWorkspace(Tensor /*workspace*/) override {}

  bool wants_rehearsal() const override { return false; }

  void Rehearse(bool /*rehearsing*/) override {}

  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) override {
    const size_t rounded =
        (static_cast<size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
    void* data = std::aligned_alloc(kAlignment, rounded);
    if (data == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("cannot allocate ", bytes, " bytes of memory for this rank"));
    }
    std::memset(data, 0, rounded);
    return std::make_unique<HostBuffer>(data, bytes);
  }

  absl::StatusOr<std::unique_ptr<HostSnapshot>> CreateSnapshot(int64_t bytes) override {
    LASP_ASSIGN_OR_RETURN(auto memory, Allocate(bytes));
    return std::make_unique<CpuSnapshot>(std::move(memory));
  }

  absl::StatusOr<std::unique_ptr<HostStash>> CreateStash(int64_t slots,
                                                         int64_t slot_bytes) override {
    LASP_ASSIGN_OR_RETURN(auto memory, Allocate(slots * slot_bytes));
    return std::make_unique<CpuStash>(std::move(memory), slot_bytes);
  }

  // Ranks share the host's memory with all else that runs there.
  std::optional<int64_t> FreeBytes() override { return std::nullopt; }

  absl::Status Synchronize() override { return absl::OkStatus(); }

  Phase EnterPhase(Phase phase) override { return phases_.Enter(phase); }

  PhaseSeconds TakePhaseSeconds() override { return phases_.Take(); }

  void EnterHelperThread() override { cpu::SetCallerThreads(1); }

  void CopyFromHost(const void* source, Tensor destination) override {
    std::memcpy(destination.data, source, static_cast<size_t>(destination.bytes()));
  }

  void CopyToHost(Tensor source, void* destination) override {
    std::memcpy(destination, source.data, static_cast<size_t>(source.bytes()));
  }

  void Convert(Tensor source, Tensor destination) override {
    for (int64_t i = 0; i < source.count(); ++i) {
      double value = 0;
      if (source.dtype == DType::kFloat64) {
        value = static_cast<const double*>(source.data)[i];
      } else if (source.dtype == DType::kBFloat16) {
        value = kernels::FromBf16Bits(static_cast<const uint16_t*>(source.data)[i]);
      } else {
        value = static_cast<const float*>(source.data)[i];
      }
      if (destination.dtype == DType::kFloat64) {
        static_cast<double*>(destination.data)[i] = value;
      } else if (destination.dtype == DType::kBFloat16) {
        static_cast<uint16_t*>(destination.data)[i] =
            kernels::NearestBf16Bits(static_cast<float>(value));
      } else {
        static_cast<float*>(destination.data)[i] = static_cast<float>(value);
      }
    }
  }

  void Copy(Tensor source, Tensor destination) override {
    cpu_tensors::CopyRows(source, destination);
  }

  void Fill(double value, Tensor x) override {
    if (x.dtype == DType::kFloat64) {
      cpu::Fill<double>(x.count(), value, static_cast<double*>(x.data));
    } else {
      cpu::Fill<float>(x.count(), static_cast<float>(value), static_cast<float*>(x.data));
    }
  }

  void Axpy(double factor, Tensor x, Tensor y) override {
    if (x.dtype == DType::kFloat64) {
      cpu::Axpy<double>(x.count(), factor, static_cast<const double*>(x.data),
                        static_cast<double*>(y.data));
    } else {
      cpu::Axpy<float>(x.count(), static_cast<float>(factor), static_cast<const float*>(x.data),
                       static_cast<float*>(y.data));
    }
  }

  void SumOfSquares(Tensor values, Tensor sum) override {
    cpu::SumOfSquares<T>(
        {.count = values.count(), .values = In<T>(values), .sum = static_cast<double*>(sum.data)});
  }

  void JudgeUpdate(const AdamWConstants& constants, double max_gradient_norm, Tensor loss,
                   Tensor sum_of_squares, Tensor control) override {
    cpu::JudgeUpdate({.max_gradient_norm = max_gradient_norm,
                      .beta1 = constants.beta1,
                      .beta2 = constants.beta2,
                      .loss = static_cast<const double*>(loss.data),
                      .sum_of_squares = static_cast<const double*>(sum_of_squares.data),
                      .control = static_cast<kernels::UpdateControl*>(control.data)});
  }

  void AdamW(const AdamWConstants& constants, Tensor control,
             const std::vector<AdamWTensors>& tensors) override {
    for (const AdamWTensors& range : tensors) {
      if constexpr (std::is_same_v<T, float>) {
        if (range.first_moment.dtype == DType::kBFloat16) {
          Update<uint16_t>(constants, control, range);
          continue;
        }
      }
      Update<T>(constants, control, range);
    }
  }

 private:
  template <typename Moment>
  static void Update(const AdamWConstants& constants, Tensor control, const AdamWTensors& range) {
    cpu::AdamW<T, Moment>({.count = range.master.count(),
                           .parameter = Out<T>(range.master),
                           .gradient = In<T>(range.gradient),
                           .first_moment = Out<Moment>(range.first_moment),
                           .second_moment = Out<Moment>(range.second_moment),
                           .first_element = range.first_element,
                           .beta1 = constants.beta1,
                           .beta2 = constants.beta2,
                           .epsilon = constants.epsilon,
                           .weight_decay = range.weight_decay,
                           .control = static_cast<const kernels::UpdateControl*>(control.data)});
  }

  HostPhaseClock phases_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(DType type, int threads) {
  if (threads < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the CPU backend needs at least 1 thread, not ", threads));
  }
  cpu::SetThreads(threads);
  switch (type) {
    case DType::kFloat32:
      return std::make_unique<CpuBackend<float>>();
    case DType::kFloat64:
      return std::make_unique<CpuBackend<double>>();
    case DType::kBFloat16:
    case DType::kInt32:
      break;
  }
  return absl::InvalidArgumentError("the CPU backend computes in fp32 or fp64");
}

}  // namespace lasp::worker
