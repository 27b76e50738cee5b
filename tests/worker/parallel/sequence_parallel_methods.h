// Every sequence-parallel method, for tests that hold for all of them.
#pragma once

#include <memory>
#include <ostream>
#include <vector>

#include "lasp/v1/training_spec.pb.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

// By default LASP.
struct SequenceParallelMethod {
  const char* name = "LASP";
  lasp::v1::SequenceParallelSpec::Method method = lasp::v1::SequenceParallelSpec::METHOD_LASP;
  std::unique_ptr<SequenceParallel> (*create)(Backend*, Communicator*) = CreateLasp;

  // For test names.
  friend void PrintTo(const SequenceParallelMethod& printed, std::ostream* out) {
    *out << printed.name;
  }
};

// It shares out weights too, and so the others are not held against it bit by bit.
inline SequenceParallelMethod MegatronSpMethod() {
  return {"MEGATRON_SP", lasp::v1::SequenceParallelSpec::METHOD_MEGATRON_SP, CreateMegatronSp};
}

// But for MegatronSpMethod.
inline std::vector<SequenceParallelMethod> SequenceParallelMethods() {
  using Spec = lasp::v1::SequenceParallelSpec;
  return {{"LASP", Spec::METHOD_LASP, CreateLasp},
          {"LASP2", Spec::METHOD_LASP2, CreateLasp2},
          {"ALL_SCAN", Spec::METHOD_ALL_SCAN,
           [](Backend* backend, Communicator* sp) {
             // Every head is a block.
             return CreateAllScan(backend, sp, 1);
           }},
          {"ULYSSES", Spec::METHOD_ULYSSES, CreateUlysses},
          {"RING_ATTENTION", Spec::METHOD_RING_ATTENTION, CreateRingAttention}};
}

// With it.
inline std::vector<SequenceParallelMethod> EverySequenceParallelMethod() {
  std::vector<SequenceParallelMethod> methods = SequenceParallelMethods();
  methods.push_back(MegatronSpMethod());
  return methods;
}

}  // namespace lasp::worker
