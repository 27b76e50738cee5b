// A run of a model of 100 million parameters that CPU and GPU train alike: 50 steps of one sequence
// of 4,096 tokens. What the CPU's losses are in fp32 is kept in model_100m_losses.inc, since it
// takes a quarter of an hour; `model_100m_losses > model_100m_losses.inc` makes it anew.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>

#include "tests/worker/engine/small_spec.h"

namespace lasp::worker {

// Of 98 million parameters; `corpus` holds MakeTokens'.
inline lasp::v1::TrainingSpec Model100MSpec(const std::string& corpus) {
  lasp::v1::TrainingSpec spec = SmallSpec(corpus);
  lasp::v1::ModelSpec& model = *spec.mutable_model();
  model.set_layers(12);
  model.set_hidden_size(768);
  model.set_heads(6);
  model.set_glu_size(2048);
  model.set_vocab_size(8192);
  spec.mutable_data()->set_format(lasp::v1::DataSpec::FORMAT_UINT16);
  spec.mutable_data()->set_sequence_length(4096);
  spec.mutable_optimizer()->set_learning_rate(6e-4);
  spec.set_global_batch_size(1);
  spec.set_max_steps(50);
  return spec;
}

// uint16 tokens below 8192, little endian, made from a seed with whole numbers only: a third follow
// their predecessor by a rule, the rest come with a heavy tail (each half as often from a range
// twice as wide), so that there is something to learn in 50 steps.
inline std::string MakeTokens(size_t count, uint32_t seed) {
  constexpr uint32_t kVocabulary = 8192;
  std::mt19937 random(seed);
  std::string bytes;
  uint32_t token = 0;
  for (size_t i = 0; i < count; ++i) {
    if (random() % 3 == 0) {
      token = (token * 5 + 17) % kVocabulary;
    } else {
      const uint32_t range = std::max<uint32_t>(1, kVocabulary >> (random() % 13));
      token = static_cast<uint32_t>(random()) % range;
    }
    bytes.push_back(static_cast<char>(token & 0xff));
    bytes.push_back(static_cast<char>(token >> 8));
  }
  return bytes;
}

// More than 50 steps of 4,096 with their labels.
inline std::string Model100MCorpus() { return MakeTokens(300'000, 11); }

}  // namespace lasp::worker
