// Times the parts of linear attention on this machine's CPU beside the matrix products of the same
// layer, and prints one JSON object. The ratios to the products, measured in the same run, are what
// can be compared between machines.
//
//   linear_attention_cpu [tokens] [heads] [head_size] [threads]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/decay_slopes.h"
#include "kernels/gemm.h"
#include "kernels/linear_attention.h"
#include "kernels/lrpe.h"
#include "kernels/threads.h"

namespace lasp::kernels {
namespace {

// The best of several runs, in milliseconds.
template <typename Body>
double Milliseconds(const Body& body) {
  double best = 1e30;
  for (int run = 0; run < 30; ++run) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double, std::milli> elapsed =
        std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  return best;
}

std::vector<float> Filled(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(static_cast<int>(i * 7919 % 2001) - 1000) / 1000.0F;
  }
  return values;
}

struct Sizes {
  int64_t tokens;
  int64_t heads;
  int64_t head_size;

  int64_t Hidden() const { return heads * head_size; }
};

// The products of a layer: the packed projection, the output, the three of a gated MLP of 2.75
// times the hidden size.
double ProductsMilliseconds(const Sizes& sizes, double* gigaflops) {
  const int64_t hidden = sizes.Hidden();
  const int64_t glu = hidden * 11 / 4;
  const std::vector<float> x = Filled(sizes.tokens * std::max(hidden, glu));
  const std::vector<float> w = Filled(hidden * std::max(4 * hidden, 2 * glu));
  std::vector<float> y(static_cast<size_t>(sizes.tokens * std::max(4 * hidden, 2 * glu)));
  double total = 0;
  double flops = 0;
  const int64_t shapes[][2] = {
      {4 * hidden, hidden}, {hidden, hidden}, {2 * glu, hidden}, {hidden, glu}};
  for (const auto& [outputs, inputs] : shapes) {
    total += Milliseconds([&] {
      cpu::Gemm<float>({.transpose_b = true,
                        .m = sizes.tokens,
                        .n = outputs,
                        .k = inputs,
                        .a = x.data(),
                        .a_stride = inputs,
                        .b = w.data(),
                        .b_stride = inputs,
                        .c = y.data(),
                        .c_stride = outputs});
    });
    flops += 2.0 * static_cast<double>(sizes.tokens * outputs * inputs);
  }
  *gigaflops = flops / total / 1e6;
  return total;
}

void Print(const Sizes& sizes, bool rotary, double products) {
  const int64_t hidden = sizes.Hidden();
  std::vector<double> slopes(static_cast<size_t>(sizes.heads));
  DecaySlopes(0, 1, sizes.heads, slopes.data());
  std::vector<double> theta(static_cast<size_t>(hidden));
  LrpeTheta(sizes.heads, sizes.head_size, theta.data());
  const LinearAttentionShape shape = {.batch = 1,
                                      .tokens = sizes.tokens,
                                      .heads = sizes.heads,
                                      .key_size = sizes.head_size,
                                      .value_size = sizes.head_size,
                                      .slopes = slopes.data(),
                                      .theta = rotary ? theta.data() : nullptr};
  // The packed projection, as in the engine.
  std::vector<float> packed = Filled(sizes.tokens * 4 * hidden);
  std::vector<float> gradient(packed.size());
  std::vector<float> output = Filled(sizes.tokens * hidden);
  const auto column = [&](std::vector<float>& x, int64_t index) {
    return HeadsView<float>{x.data() + index * hidden, sizes.tokens * 4 * hidden, 4 * hidden,
                            sizes.head_size};
  };
  const HeadsView<float> q = column(packed, 0);
  const HeadsView<float> k = column(packed, 1);
  const HeadsView<float> v = column(packed, 2);
  const HeadsView<float> d_q = column(gradient, 0);
  const HeadsView<float> d_k = column(gradient, 1);
  const HeadsView<float> d_v = column(gradient, 2);
  const HeadsView<float> o = {output.data(), sizes.tokens * hidden, hidden, sizes.head_size};
  std::vector<float> state(static_cast<size_t>(StateElements(shape)));
  std::vector<float> state_gradient(state.size());
  std::vector<float> block_states(static_cast<size_t>(BlockStateElements(shape)));
  std::vector<float> block_gradients(block_states.size());

  const double local = Milliseconds(
      [&] { cpu::LocalState<float>({shape, k, v, state.data(), block_states.data()}); });
  const double intra =
      Milliseconds([&] { cpu::IntraOutput<float>({shape, q, k, v, block_states.data(), o}); });
  const double inter =
      Milliseconds([&] { cpu::AddInterOutput<float>({shape, q, state.data(), o}); });
  const double hop = Milliseconds(
      [&] { cpu::StateHop<float>({shape, state.data(), state.data(), state_gradient.data()}); });
  const double local_gradient = Milliseconds([&] {
    cpu::LocalStateGradient<float>({shape, q, o, state_gradient.data(), block_gradients.data()});
  });
  const double intra_gradients = Milliseconds([&] {
    cpu::IntraGradients<float>(
        {shape, q, k, v, o, block_states.data(), block_gradients.data(), d_q, d_k, d_v, nullptr});
  });
  const double inter_query = Milliseconds(
      [&] { cpu::AddInterQueryGradients<float>({shape, q, o, state.data(), d_q, nullptr}); });
  const double inter_key_value = Milliseconds([&] {
    cpu::AddInterKeyValueGradients<float>(
        {shape, k, v, state_gradient.data(), d_k, d_v, nullptr, nullptr});
  });
  const double forward = local + intra + inter + hop;
  const double backward = local_gradient + intra_gradients + inter_query + inter_key_value + hop;
  std::printf(
      "    \"%s\": {\"local_state_ms\": %.3f, \"intra_output_ms\": %.3f, \"add_inter_output_ms\": "
      "%.3f, \"state_hop_ms\": %.4f, \"local_state_gradient_ms\": %.3f, \"intra_gradients_ms\": "
      "%.3f, \"add_inter_query_gradients_ms\": %.3f, \"add_inter_key_value_gradients_ms\": %.3f, "
      "\"forward_over_products\": %.3f, \"backward_over_products\": %.3f}",
      rotary ? "rotary" : "plain", local, intra, inter, hop, local_gradient, intra_gradients,
      inter_query, inter_key_value, forward / products, backward / (2 * products));
}

int64_t Argument(int count, char** values, int index, int64_t otherwise) {
  return count > index ? std::strtoll(values[index], nullptr, 10) : otherwise;
}

}  // namespace
}  // namespace lasp::kernels

int main(int argc, char** argv) {
  using lasp::kernels::Argument;
  const lasp::kernels::Sizes sizes = {.tokens = Argument(argc, argv, 1, 1024),
                                      .heads = Argument(argc, argv, 2, 4),
                                      .head_size = Argument(argc, argv, 3, 64)};
  const auto threads = static_cast<int>(Argument(argc, argv, 4, 1));
  if (sizes.tokens < 1 || sizes.heads < 1 || sizes.head_size < 1 || threads < 1) {
    std::fprintf(stderr, "usage: linear_attention_cpu [tokens] [heads] [head_size] [threads]\n");
    return 2;
  }
  lasp::kernels::cpu::SetThreads(threads);
  double gigaflops = 0;
  const double products = lasp::kernels::ProductsMilliseconds(sizes, &gigaflops);
  std::printf(
      "{\"tokens\": %lld, \"heads\": %lld, \"head_size\": %lld, \"threads\": %d,\n"
      "  \"products_ms\": %.3f, \"products_gigaflops\": %.1f,\n  \"attention\": {\n",
      static_cast<long long>(sizes.tokens),     // NOLINT(google-runtime-int): what printf knows
      static_cast<long long>(sizes.heads),      // NOLINT(google-runtime-int)
      static_cast<long long>(sizes.head_size),  // NOLINT(google-runtime-int)
      threads, products, gigaflops);
  lasp::kernels::Print(sizes, false, products);
  std::printf(",\n");
  lasp::kernels::Print(sizes, true, products);
  std::printf("\n  }}\n");
  return 0;
}
