#include "kernels/cuda/cudnn_plan.h"

#include <utility>

namespace lasp::kernels::cuda {

CudnnDevice::CudnnDevice(const CudnnLibrary* library, int index, const std::string& description)
    : objects_(library), properties_(objects_.Create(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)) {
  if (description.empty()) {
    objects_.Set(properties_, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, int32_t{index});
  } else {
    objects_.SetAll(properties_, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                    description.data(), description.size());
  }
  objects_.Finalize(properties_);
}

CudnnPlan::CudnnPlan(std::unique_ptr<CudnnGraph> graph, const CudnnDevice& device)
    : graph_(std::move(graph)), properties_(device.properties()) {
  CudnnObjects& objects = graph_->objects();
  const CudnnLibrary& library = objects.library();
  objects.Check(device.status());
  const CudnnObject whole = graph_->Finish();
  const CudnnObject heuristics = objects.Create(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  objects.Set(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR,
              whole);
  objects.Set(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, CUDNN_HEUR_MODE_A);
  objects.Set(heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR,
              properties_);
  objects.Finalize(heuristics);
  if (objects.status() != CUDNN_STATUS_SUCCESS) {
    return;
  }
  int64_t count = 0;
  objects.Check(library.get_attribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                      CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr));
  std::vector<CudnnObject> engines;
  engines.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    engines.push_back(objects.Create(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
  }
  if (objects.status() == CUDNN_STATUS_SUCCESS && count > 0) {
    objects.Check(library.get_attribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &count,
                                        static_cast<void*>(engines.data())));
    engines.resize(static_cast<size_t>(count));
    engines_ = std::move(engines);
  }
  if (engines_.empty()) {
    objects.Check(CUDNN_STATUS_NOT_SUPPORTED);
  }
}

int64_t CudnnPlan::WorkspaceBytes(CudnnObject engine) {
  CudnnObjects& objects = graph_->objects();
  int64_t bytes = 0;
  int64_t count = 0;
  objects.Check(objects.library().get_attribute(engine, CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE,
                                                CUDNN_TYPE_INT64, 1, &count, &bytes));
  return bytes;
}

int64_t CudnnPlan::ProposedWorkspaceBytes() {
  return status() == CUDNN_STATUS_SUCCESS ? WorkspaceBytes(engines_[0]) : 0;
}

cudnnStatus_t CudnnPlan::Compile(int64_t most_workspace_bytes) {
  CudnnObjects& objects = graph_->objects();
  const CudnnLibrary& library = objects.library();
  cudnnStatus_t last = CUDNN_STATUS_NOT_SUPPORTED;
  for (const CudnnObject engine : engines_) {
    if (status() != CUDNN_STATUS_SUCCESS || WorkspaceBytes(engine) > most_workspace_bytes) {
      continue;
    }
    const CudnnObject plan = objects.Create(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    objects.Set(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                engine);
    objects.Set(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                properties_);
    if (status() != CUDNN_STATUS_SUCCESS) {
      break;
    }
    last = library.finalize(plan);
    if (last == CUDNN_STATUS_SUCCESS) {
      plan_ = plan;
      return last;
    }
  }
  objects.Check(last);
  return status();
}

cudnnStatus_t CudnnPlan::Run(cudnnHandle_t handle, const std::vector<CudnnBinding>& bindings,
                             void* workspace) {
  std::vector<int64_t> ids;
  ids.reserve(bindings.size());
  std::vector<const void*> data;
  data.reserve(bindings.size());
  for (const CudnnBinding& binding : bindings) {
    ids.push_back(binding.id);
    data.push_back(binding.data);
  }
  const CudnnLibrary& library = graph_->objects().library();
  CudnnObjects objects(&library);
  const CudnnObject pack = objects.Create(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  objects.SetAll(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, ids.data(),
                 ids.size());
  objects.SetAll(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, data.data(),
                 data.size());
  objects.Set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace);
  objects.Finalize(pack);
  if (objects.status() == CUDNN_STATUS_SUCCESS) {
    objects.Check(library.execute(handle, plan_, pack));
  }
  return objects.status();
}

}  // namespace lasp::kernels::cuda
