#include "worker/parallel/peer_memory.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_status.h"

namespace lasp::worker {
namespace {

// What a rank tells the others of its memory.
struct Card {
  std::array<char, 40> host = {};     // the id of the kernel's start; empty: cannot be shared
  std::array<char, 40> process = {};  // random: process ids are not unique among containers
  int64_t device = 0;                 // as its process counts them
  char* address = nullptr;
  int64_t offset = 0;  // in the allocation
  int64_t bytes = 0;
  cudaIpcMemHandle_t allocation = {};
};

static_assert(sizeof(Card) % sizeof(double) == 0);

template <size_t N>
void Put(const std::string& text, std::array<char, N>* field) {
  field->fill('\0');
  std::memcpy(field->data(), text.data(), std::min(text.size(), N - 1));
}

std::string HostStart() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

const std::string& ThisProcess() {
  static const std::string kId = NewUuid();
  return kId;
}

// Where the allocation begins that `memory` is in; null where the driver does not say.
char* AllocationOf(char* memory) {
  using AddressRange = CUresult (*)(CUdeviceptr*, size_t*, CUdeviceptr);
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  CUdeviceptr begin = 0;
  if (cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &function, 12000, cudaEnableDefault,
                                       &found) != cudaSuccess ||
      found != cudaDriverEntryPointSuccess ||
      reinterpret_cast<AddressRange>(function)(
          &begin, nullptr, reinterpret_cast<CUdeviceptr>(memory)) != CUDA_SUCCESS) {
    return nullptr;
  }
  return reinterpret_cast<char*>(begin);  // NOLINT(performance-no-int-to-ptr): the driver's way
}

Card CardOf(char* memory, int64_t bytes) {
  Card card;
  card.bytes = bytes;
  int device = 0;
  char* const allocation = AllocationOf(memory);
  if (allocation == nullptr || cudaGetDevice(&device) != cudaSuccess ||
      cudaIpcGetMemHandle(&card.allocation, allocation) != cudaSuccess) {
    (void)cudaGetLastError();
    return card;
  }
  Put(HostStart(), &card.host);
  Put(ThisProcess(), &card.process);
  card.device = device;
  card.address = memory;
  card.offset = memory - allocation;
  return card;
}

absl::StatusOr<std::vector<Card>> AllCards(const Card& own, Backend& backend, Communicator& group) {
  constexpr int64_t kWords = sizeof(Card) / sizeof(double);
  const int64_t ranks = group.size();
  LASP_ASSIGN_OR_RETURN(const auto memory, backend.Allocate((1 + ranks) * int64_t{sizeof(Card)}));
  const Tensor all{memory->data(), DType::kFloat64, 1 + ranks, kWords, kWords};
  backend.CopyFromHost(&own, all.Rows(0, 1));
  LASP_RETURN_IF_ERROR(group.AllGather(all.Rows(0, 1), all.Rows(1, ranks)).Wait());
  std::vector<Card> cards(static_cast<size_t>(ranks));
  backend.CopyToHost(all.Rows(1, ranks), cards.data());
  LASP_RETURN_IF_ERROR(backend.Synchronize());
  return cards;
}

// Whether it is so on every rank.
absl::StatusOr<bool> OnEveryRank(bool here, Backend& backend, Communicator& group) {
  double failures = here ? 0 : 1;
  LASP_ASSIGN_OR_RETURN(const auto memory, backend.Allocate(sizeof failures));
  const Tensor sum{memory->data(), DType::kFloat64, 1, 1, 1};
  backend.CopyFromHost(&failures, sum);
  LASP_RETURN_IF_ERROR(group.AllReduceSum(sum).Wait());
  backend.CopyToHost(sum, &failures);
  LASP_RETURN_IF_ERROR(backend.Synchronize());
  return failures == 0;
}

// Of a rank that is a thread of this process.
char* ReachWithinProcess(const Card& card, int own_device) {
  const int device = static_cast<int>(card.device);
  int reachable = 0;
  if (device == own_device) {
    return card.address;
  }
  if (cudaDeviceCanAccessPeer(&reachable, own_device, device) != cudaSuccess || reachable == 0) {
    return nullptr;
  }
  const cudaError_t enabled = cudaDeviceEnablePeerAccess(device, 0);
  (void)cudaGetLastError();
  return enabled == cudaSuccess || enabled == cudaErrorPeerAccessAlreadyEnabled ? card.address
                                                                                : nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PeerMemory>> PeerMemory::Exchange(CudaBackend* backend,
                                                                 Communicator* group, void* memory,
                                                                 int64_t bytes) {
  const Card own = CardOf(static_cast<char*>(memory), bytes);
  LASP_ASSIGN_OR_RETURN(const std::vector<Card> cards, AllCards(own, *backend, *group));
  auto peers = std::unique_ptr<PeerMemory>(new PeerMemory(group->size()));
  bool reached = own.host[0] != '\0';
  for (size_t rank = 0; rank < cards.size() && reached; ++rank) {
    const Card& card = cards[rank];
    char*& address = peers->addresses_[rank];
    if (card.host != own.host || card.bytes != own.bytes) {
      reached = false;
    } else if (card.process == own.process) {
      address = ReachWithinProcess(card, static_cast<int>(own.device));
    } else if (void* allocation = nullptr;
               cudaIpcOpenMemHandle(&allocation, card.allocation, cudaIpcMemLazyEnablePeerAccess) ==
               cudaSuccess) {
      peers->opened_.push_back(allocation);
      address = static_cast<char*>(allocation) + card.offset;
    }
    (void)cudaGetLastError();
    reached = reached && address != nullptr;
  }
  LASP_ASSIGN_OR_RETURN(const bool all, OnEveryRank(reached, *backend, *group));
  if (!all) {
    return nullptr;
  }
  return peers;
}

PeerMemory::~PeerMemory() {
  for (void* const allocation : opened_) {
    (void)cudaIpcCloseMemHandle(allocation);
  }
}

}  // namespace lasp::worker
