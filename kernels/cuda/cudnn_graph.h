// A graph of cuDNN's operations, all on tensors of four dimensions: {batch, head, row, column}, and
// nothing of what it computes is said here. What a graph is made of lives as long as it does.
#pragma once

#include <cudnn_graph.h>

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/cuda/cudnn_library.h"

namespace lasp::kernels::cuda {

using CudnnObject = cudnnBackendDescriptor_t;
using CudnnSizes = std::array<int64_t, 4>;

// Objects of cuDNN's backend. The first failure of all calls stays, and ends the others.
class CudnnObjects {
 public:
  // `library` must outlive this.
  explicit CudnnObjects(const CudnnLibrary* library) : library_(library) {}

  ~CudnnObjects();
  CudnnObjects(const CudnnObjects&) = delete;
  CudnnObjects& operator=(const CudnnObjects&) = delete;

  CudnnObject Create(cudnnBackendDescriptorType_t type);
  void Finalize(CudnnObject object);

  template <typename T>
  void Set(CudnnObject object, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
           const T& value) {
    SetAll(object, name, type, &value, 1);
  }

  template <typename T>
  void SetAll(CudnnObject object, cudnnBackendAttributeName_t name,
              cudnnBackendAttributeType_t type, const T* values, size_t count) {
    if (status_ == CUDNN_STATUS_SUCCESS) {
      Check(library_->set_attribute(object, name, type, static_cast<int64_t>(count),
                                    static_cast<const void*>(values)));
    }
  }

  const CudnnLibrary& library() const { return *library_; }

  cudnnStatus_t status() const { return status_; }

  void Check(cudnnStatus_t status) { status_ = status_ == CUDNN_STATUS_SUCCESS ? status : status_; }

 private:
  const CudnnLibrary* library_;
  std::vector<CudnnObject> objects_;
  cudnnStatus_t status_ = CUDNN_STATUS_SUCCESS;
};

// y = operation(x, b), element by element; t chooses where the operation is a choice.
struct CudnnPointwise {
  cudnnPointwiseMode_t mode;
  CudnnObject x = nullptr;
  CudnnObject b = nullptr;
  CudnnObject t = nullptr;
  CudnnObject y = nullptr;
  cudnnDataType_t precision = CUDNN_DATA_FLOAT;
  int64_t axis = -1;  // of what generates indices
};

class CudnnGraph {
 public:
  explicit CudnnGraph(const CudnnLibrary* library) : objects_(library) {}

  // A tensor in memory, aligned to 16 bytes, that a run names by `id`.
  CudnnObject Tensor(int64_t id, cudnnDataType_t type, const CudnnSizes& sizes,
                     const CudnnSizes& strides);
  // A single number in host memory, that a run names by `id`.
  CudnnObject Scalar(int64_t id, cudnnDataType_t type);
  // What is between two operations, and in no memory; contiguous unless strides say otherwise.
  CudnnObject Between(cudnnDataType_t type, const CudnnSizes& sizes);
  CudnnObject Between(cudnnDataType_t type, const CudnnSizes& sizes, const CudnnSizes& strides);

  void Add(const CudnnPointwise& operation);
  // Over the dimensions in which y has one element, or fewer heads.
  void AddReduction(cudnnReduceTensorOp_t operation, CudnnObject x, CudnnObject y);
  // c = a b, of rows and columns.
  void AddProduct(CudnnObject a, CudnnObject b, CudnnObject c);
  // The same elements with rows and columns the other way round.
  void AddTransposition(CudnnObject x, CudnnObject y);

  // The operations, in the order they were added, as one object.
  CudnnObject Finish();

  CudnnObjects& objects() { return objects_; }

 private:
  CudnnObject MakeTensor(int64_t id, cudnnDataType_t type, const CudnnSizes& sizes,
                         const CudnnSizes& strides, cudnnBackendAttributeName_t kind);

  CudnnObjects objects_;
  std::vector<CudnnObject> operations_;
  int64_t next_id_ = 1000;  // of what runs do not name
};

// Of a contiguous tensor.
CudnnSizes ContiguousStrides(const CudnnSizes& sizes);

}  // namespace lasp::kernels::cuda
