// linear_attention_witness FOLDER TOKENS SIZE: runs linear attention once, forward and backward,
// and writes what went in, what came out and what the fp64 recurrence has (Layer::WriteTo) for
// chunked_witness_test.py. Prints the heads' slopes.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/decay_slopes.h"
#include "tests/kernels/cuda/linear_attention_layer.h"

namespace lasp::kernels {
namespace {

// The first and the last head's of layers 0, 8 and 15 of TransNormer's 16; none; and much.
std::vector<double> Slopes() {
  constexpr int64_t kHeads = 16;
  std::vector<double> slopes;
  for (const int64_t layer : {0, 8, 15}) {
    double of_layer[kHeads];
    DecaySlopes(layer, 16, kHeads, of_layer);
    slopes.push_back(of_layer[0]);
    slopes.push_back(of_layer[kHeads - 1]);
  }
  slopes.push_back(0);
  slopes.push_back(0.99);
  return slopes;
}

int Run(const char* folder, int64_t tokens, int64_t size) {
  const std::vector<double> slopes = Slopes();
  Layer layer({.tokens = tokens,
               .heads = static_cast<int64_t>(slopes.size()),
               .size = size,
               .slopes = slopes,
               .states_in = false,
               .seed = 300});
  const cudaError_t error = layer.Run();
  if (error != cudaSuccess) {
    std::fprintf(stderr, "linear_attention_witness: %s\n", cudaGetErrorString(error));
    return 1;
  }
  if (!layer.WriteTo(folder)) {
    std::fprintf(stderr, "linear_attention_witness: cannot write into %s\n", folder);
    return 1;
  }
  for (const double slope : slopes) {
    std::printf("%.17g\n", slope);
  }
  return 0;
}

}  // namespace
}  // namespace lasp::kernels

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: linear_attention_witness FOLDER TOKENS SIZE\n");
    return 2;
  }
  return lasp::kernels::Run(argv[1], std::atoll(argv[2]), std::atoll(argv[3]));
}
