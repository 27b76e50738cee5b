// model_100m_losses [THREADS]: prints model_100m_losses.inc, the losses of model_100m.h's run on
// the CPU in fp32.
#include <cstdio>
#include <cstdlib>

#include "tests/support/temp_directory.h"
#include "tests/worker/engine/local_training.h"
#include "tests/worker/engine/model_100m.h"

int main(int argc, char** argv) {
  using namespace lasp::worker;  // NOLINT(google-build-using-namespace)
  const lasp::testing::TempDirectory folder;
  folder.Write("corpus.bin", Model100MCorpus());
  LocalTrainingOptions options;
  options.spec = Model100MSpec("corpus.bin");
  options.path_roots = {folder.path()};
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  options.create_backend = [threads] { return CreateCpuBackend(DType::kFloat32, threads); };
  std::printf("// Made by model_100m_losses.cc.\n");
  options.on_step = [](int, const lasp::internal::v1::RankStep& step, DrainRequest&) {
    std::printf("%.6f,\n", step.metrics().loss());
    std::fflush(stdout);
  };
  const absl::Status status = TrainLocally(options)[0].status;
  if (!status.ok()) {
    std::fprintf(stderr, "model_100m_losses: %s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}
