#include "kernels/cuda/cudnn_graph.h"

namespace lasp::kernels::cuda {

CudnnObjects::~CudnnObjects() {
  for (auto object = objects_.rbegin(); object != objects_.rend(); ++object) {
    (void)library_->destroy_descriptor(*object);
  }
}

CudnnObject CudnnObjects::Create(cudnnBackendDescriptorType_t type) {
  CudnnObject object = nullptr;
  if (status_ == CUDNN_STATUS_SUCCESS) {
    Check(library_->create_descriptor(type, &object));
  }
  if (object != nullptr) {
    objects_.push_back(object);
  }
  return object;
}

void CudnnObjects::Finalize(CudnnObject object) {
  if (status_ == CUDNN_STATUS_SUCCESS) {
    Check(library_->finalize(object));
  }
}

CudnnSizes ContiguousStrides(const CudnnSizes& sizes) {
  return {sizes[1] * sizes[2] * sizes[3], sizes[2] * sizes[3], sizes[3], 1};
}

CudnnObject CudnnGraph::MakeTensor(int64_t id, cudnnDataType_t type, const CudnnSizes& sizes,
                                   const CudnnSizes& strides, cudnnBackendAttributeName_t kind) {
  constexpr int64_t kAlignment = 16;
  const CudnnObject tensor = objects_.Create(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  objects_.Set(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, id);
  objects_.Set(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type);
  objects_.Set(tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, kAlignment);
  objects_.SetAll(tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, sizes.data(),
                  sizes.size());
  objects_.SetAll(tensor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, strides.data(),
                  strides.size());
  if (kind != CUDNN_ATTR_TENSOR_UNIQUE_ID) {
    objects_.Set(tensor, kind, CUDNN_TYPE_BOOLEAN, true);
  }
  objects_.Finalize(tensor);
  return tensor;
}

CudnnObject CudnnGraph::Tensor(int64_t id, cudnnDataType_t type, const CudnnSizes& sizes,
                               const CudnnSizes& strides) {
  return MakeTensor(id, type, sizes, strides, CUDNN_ATTR_TENSOR_UNIQUE_ID);
}

CudnnObject CudnnGraph::Scalar(int64_t id, cudnnDataType_t type) {
  return MakeTensor(id, type, {1, 1, 1, 1}, {1, 1, 1, 1}, CUDNN_ATTR_TENSOR_IS_BY_VALUE);
}

CudnnObject CudnnGraph::Between(cudnnDataType_t type, const CudnnSizes& sizes) {
  return Between(type, sizes, ContiguousStrides(sizes));
}

CudnnObject CudnnGraph::Between(cudnnDataType_t type, const CudnnSizes& sizes,
                                const CudnnSizes& strides) {
  return MakeTensor(next_id_++, type, sizes, strides, CUDNN_ATTR_TENSOR_IS_VIRTUAL);
}

void CudnnGraph::Add(const CudnnPointwise& operation) {
  const CudnnObject kind = objects_.Create(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  objects_.Set(kind, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, operation.mode);
  objects_.Set(kind, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, operation.precision);
  if (operation.axis >= 0) {
    objects_.Set(kind, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, operation.axis);
  }
  objects_.Finalize(kind);
  const CudnnObject node = objects_.Create(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  const auto set = [&](cudnnBackendAttributeName_t name, CudnnObject object) {
    if (object != nullptr) {
      objects_.Set(node, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, object);
    }
  };
  set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kind);
  set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, operation.x);
  set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, operation.b);
  set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, operation.t);
  set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, operation.y);
  objects_.Finalize(node);
  operations_.push_back(node);
}

void CudnnGraph::AddReduction(cudnnReduceTensorOp_t operation, CudnnObject x, CudnnObject y) {
  const CudnnObject kind = objects_.Create(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  objects_.Set(kind, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, operation);
  objects_.Set(kind, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  objects_.Finalize(kind);
  const CudnnObject node = objects_.Create(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  objects_.Set(node, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, x);
  objects_.Set(node, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, y);
  objects_.Set(node, CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, kind);
  objects_.Finalize(node);
  operations_.push_back(node);
}

void CudnnGraph::AddProduct(CudnnObject a, CudnnObject b, CudnnObject c) {
  const CudnnObject kind = objects_.Create(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  objects_.Set(kind, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  objects_.Finalize(kind);
  const CudnnObject node = objects_.Create(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  objects_.Set(node, CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, a);
  objects_.Set(node, CUDNN_ATTR_OPERATION_MATMUL_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, b);
  objects_.Set(node, CUDNN_ATTR_OPERATION_MATMUL_CDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, c);
  objects_.Set(node, CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, kind);
  objects_.Finalize(node);
  operations_.push_back(node);
}

void CudnnGraph::AddTransposition(CudnnObject x, CudnnObject y) {
  const CudnnObject node = objects_.Create(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
  objects_.Set(node, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, x);
  objects_.Set(node, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, y);
  objects_.Finalize(node);
  operations_.push_back(node);
}

CudnnObject CudnnGraph::Finish() {
  const CudnnObject graph = objects_.Create(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  objects_.SetAll(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                  operations_.data(), operations_.size());
  objects_.Finalize(graph);
  return graph;
}

}  // namespace lasp::kernels::cuda
