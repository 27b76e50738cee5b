#include "worker/device/cuda_gemm.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_status.h"

namespace lasp::worker {
namespace {

using kernels::cuda::GemmAlgorithm;
using kernels::cuda::GemmOperands;
using kernels::cuda::GemmShape;

constexpr int kCandidates = 16;
// All candidates take turns, so that a GPU that slows down as it warms favours none.
constexpr int kRounds = 5;

std::string Describe(const GemmShape& shape) {
  return absl::StrCat("the product of ", shape.m, " x ", shape.k, " and ", shape.k, " x ", shape.n);
}

absl::Status CublasStatus(cublasStatus_t status, const GemmShape& shape) {
  return status == CUBLAS_STATUS_SUCCESS
             ? absl::OkStatus()
             : absl::InternalError(
                   absl::StrCat(Describe(shape), ": ", cublasLtGetStatusName(status)));
}

// Two events for as long as something is measured.
class Timer {
 public:
  explicit Timer(cudaStream_t stream) : stream_(stream) {}

  ~Timer() {
    (void)cudaEventDestroy(begin_);
    (void)cudaEventDestroy(end_);
  }

  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  template <typename Body>
  absl::StatusOr<float> Milliseconds(const Body& body) {
    if (begin_ == nullptr) {
      LASP_RETURN_IF_CUDA_ERROR(cudaEventCreate(&begin_), "making an event");
      LASP_RETURN_IF_CUDA_ERROR(cudaEventCreate(&end_), "making an event");
    }
    LASP_RETURN_IF_CUDA_ERROR(cudaEventRecord(begin_, stream_), "recording an event");
    LASP_RETURN_IF_ERROR(body());
    LASP_RETURN_IF_CUDA_ERROR(cudaEventRecord(end_, stream_), "recording an event");
    LASP_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(end_), "measuring a product");
    float milliseconds = 0;
    LASP_RETURN_IF_CUDA_ERROR(cudaEventElapsedTime(&milliseconds, begin_, end_), "reading a time");
    return milliseconds;
  }

 private:
  const cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

nlohmann::json ToJson(const GemmShape& shape) {
  return {{"transpose_a", shape.transpose_a},
          {"transpose_b", shape.transpose_b},
          {"m", shape.m},
          {"n", shape.n},
          {"k", shape.k},
          {"a_stride", shape.a_stride},
          {"b_stride", shape.b_stride},
          {"c_stride", shape.c_stride},
          {"fp32_output", shape.fp32_output},
          {"adds", shape.adds},
          {"alignment", shape.alignment},
          {"multiprocessors", shape.multiprocessors}};
}

// Throws what the JSON library throws.
GemmShape ShapeFrom(const nlohmann::json& json) {
  GemmShape shape;
  json.at("transpose_a").get_to(shape.transpose_a);
  json.at("transpose_b").get_to(shape.transpose_b);
  json.at("m").get_to(shape.m);
  json.at("n").get_to(shape.n);
  json.at("k").get_to(shape.k);
  json.at("a_stride").get_to(shape.a_stride);
  json.at("b_stride").get_to(shape.b_stride);
  json.at("c_stride").get_to(shape.c_stride);
  json.at("fp32_output").get_to(shape.fp32_output);
  json.at("adds").get_to(shape.adds);
  json.at("alignment").get_to(shape.alignment);
  json.at("multiprocessors").get_to(shape.multiprocessors);
  return shape;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaGemm>> CudaGemm::Create(cudaStream_t stream) {
  int device = 0;
  cudaDeviceProp properties;
  LASP_RETURN_IF_CUDA_ERROR(cudaGetDevice(&device), "finding the GPU");
  LASP_RETURN_IF_CUDA_ERROR(cudaGetDeviceProperties(&properties, device), "asking the GPU");
  cublasLtHandle_t handle = nullptr;
  if (const cublasStatus_t status = cublasLtCreate(&handle); status != CUBLAS_STATUS_SUCCESS) {
    return absl::InternalError(
        absl::StrCat("cannot start cuBLASLt: ", cublasLtGetStatusName(status)));
  }
  return std::unique_ptr<CudaGemm>(new CudaGemm(handle, stream, properties.name));
}

CudaGemm::~CudaGemm() { cublasLtDestroy(handle_); }

absl::Status CudaGemm::Run(const GemmShape& shape, const GemmOperands& operands, void* workspace) {
  LASP_ASSIGN_OR_RETURN(const Choice* const choice, ChoiceOf(shape, operands, workspace));
  return CublasStatus(
      kernels::cuda::Gemm(handle_, shape, operands, choice->algorithm, workspace, stream_), shape);
}

absl::StatusOr<const CudaGemm::Choice*> CudaGemm::ChoiceOf(const GemmShape& shape,
                                                           const GemmOperands& operands,
                                                           void* workspace) {
  for (const Choice& choice : choices_) {
    if (choice.shape == shape) {
      return &choice;
    }
  }
  std::vector<GemmAlgorithm> candidates(kCandidates);
  int count = 0;
  LASP_RETURN_IF_ERROR(
      CublasStatus(kernels::cuda::GemmCandidates(handle_, shape, kWorkspaceBytes, kCandidates,
                                                 candidates.data(), &count),
                   shape));
  candidates.resize(static_cast<size_t>(count));
  Choice choice{.shape = shape, .algorithm = candidates[0]};
  if (measuring_) {
    LASP_RETURN_IF_ERROR(Measure(operands, candidates, workspace, &choice));
  }
  choices_.push_back(choice);
  return &choices_.back();
}

absl::Status CudaGemm::Measure(const GemmOperands& operands,
                               const std::vector<GemmAlgorithm>& candidates, void* workspace,
                               Choice* choice) {
  Timer timer(stream_);
  std::vector<float> totals(candidates.size());
  // The first round loads code and is not counted.
  for (int round = 0; round <= kRounds; ++round) {
    for (size_t i = 0; i < candidates.size(); ++i) {
      LASP_ASSIGN_OR_RETURN(const float milliseconds, timer.Milliseconds([&] {
        return CublasStatus(kernels::cuda::Gemm(handle_, choice->shape, operands, candidates[i],
                                                workspace, stream_),
                            choice->shape);
      }));
      totals[i] += round == 0 ? 0 : milliseconds;
    }
  }
  const auto best = std::min_element(totals.begin(), totals.end());
  choice->algorithm = candidates[static_cast<size_t>(best - totals.begin())];
  choice->microseconds = 1e3 * static_cast<double>(*best) / kRounds;
  return absl::OkStatus();
}

std::string CudaGemm::Record() const {
  nlohmann::json products = nlohmann::json::array();
  for (const Choice& choice : choices_) {
    products.push_back({{"shape", ToJson(choice.shape)},
                        {"algorithm", choice.algorithm.words},
                        {"workspace_bytes", choice.algorithm.workspace_bytes},
                        {"microseconds", choice.microseconds}});
  }
  return nlohmann::json{
      {"cublaslt", cublasLtGetVersion()}, {"gpu", gpu_}, {"products", std::move(products)}}
      .dump(1);
}

absl::StatusOr<bool> CudaGemm::Pin(absl::string_view record) {
  // The library throws; here it ends.
  try {
    const nlohmann::json json = nlohmann::json::parse(record.begin(), record.end());
    if (json.at("cublaslt").get<size_t>() != cublasLtGetVersion() ||
        json.at("gpu").get<std::string>() != gpu_) {
      return false;
    }
    std::vector<Choice> choices;
    for (const nlohmann::json& product : json.at("products")) {
      Choice choice{.shape = ShapeFrom(product.at("shape")), .algorithm = {}};
      const auto& words = product.at("algorithm");
      if (words.size() != std::size(choice.algorithm.words)) {
        return absl::InvalidArgumentError(
            "not a record of matrix products: an algorithm has the wrong size");
      }
      for (size_t i = 0; i < words.size(); ++i) {
        words[i].get_to(choice.algorithm.words[i]);
      }
      product.at("workspace_bytes").get_to(choice.algorithm.workspace_bytes);
      product.at("microseconds").get_to(choice.microseconds);
      if (choice.algorithm.workspace_bytes > kWorkspaceBytes) {
        return absl::InvalidArgumentError(
            "not a record of matrix products: an algorithm wants too much workspace");
      }
      choices.push_back(choice);
    }
    choices_ = std::move(choices);
    return true;
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a record of matrix products: ", error.what()));
  }
}

}  // namespace lasp::worker
