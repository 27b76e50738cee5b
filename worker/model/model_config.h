// The shape of a model, as the engine needs it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "lasp/v1/training_spec.pb.h"
#include "worker/parallel/sequence_slices.h"

namespace lasp::worker {

struct ModelConfig {
  // A Linear Transformer in TransNormer's blocks: normalised attention without decay, LRPE and
  // gate, and sinusoidal positions.
  bool linear_transformer = false;
  int64_t layers = 0;
  int64_t hidden_size = 0;
  int64_t heads = 0;
  int64_t glu_size = 0;
  int64_t vocab_size = 0;
  bool tie_embeddings = false;
  // Whether the first layer's rotary frequencies are parameters.
  bool learned_theta = false;
  double init_std = 0.02;
  // With tensor parallelism: the ranks that share out heads, of keys and values as of queries, and
  // the MLP's columns, which are multiples of them, and this one's place among them. All other
  // sizes are of the whole model.
  int tensor_ranks = 1;
  int tensor_rank = 0;
  // The kinds of the layers from the first on, repeated: L linear attention, N softmax attention,
  // with so many heads of keys and values, and rotary positions of this base.
  std::string layer_pattern = "L";
  int64_t kv_heads = 0;
  double rotary_base = 10000;

  int64_t head_size() const { return hidden_size / heads; }

  // What this rank has of them, and the columns of its heads.
  int64_t own_heads() const { return heads / tensor_ranks; }

  int64_t own_width() const { return own_heads() * head_size(); }

  int64_t own_kv_heads() const { return kv_heads / tensor_ranks; }

  int64_t own_kv_width() const { return own_kv_heads() * head_size(); }

  int64_t own_glu_size() const { return glu_size / tensor_ranks; }

  bool softmax(int64_t layer) const {
    return layer_pattern[static_cast<size_t>(layer) % layer_pattern.size()] == 'N';
  }

  // The first layer of linear attention, whose states are the largest; `layers` where there is
  // none. And the first of softmax attention.
  int64_t first_linear() const { return FirstOfKind(false); }

  int64_t first_softmax() const { return FirstOfKind(true); }

  bool has_linear() const { return first_linear() < layers; }

  bool has_softmax() const { return first_softmax() < layers; }

  // Columns of a layer's projection here: queries, keys, values, and the gate where there is one.
  int64_t projection_size(int64_t layer) const {
    return softmax(layer) ? own_width() + 2 * own_kv_width()
                          : (linear_transformer ? 3 : 4) * own_width();
  }

  int64_t widest_projection() const {
    return std::max(has_linear() ? projection_size(first_linear()) : 0,
                    has_softmax() ? projection_size(first_softmax()) : 0);
  }

  // `spec` with its defaults written out, and valid.
  static ModelConfig FromSpec(const lasp::v1::ModelSpec& spec) {
    return {.linear_transformer =
                spec.architecture() == lasp::v1::ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER,
            .layers = spec.layers(),
            .hidden_size = spec.hidden_size(),
            .heads = spec.heads(),
            .glu_size = spec.glu_size(),
            .vocab_size = spec.vocab_size(),
            .tie_embeddings = spec.tie_embeddings(),
            .learned_theta = spec.lrpe_theta() == lasp::v1::ModelSpec::LRPE_THETA_LEARNED,
            .init_std = spec.init_std(),
            // A model that was stored before there were patterns has none.
            .layer_pattern = spec.layer_pattern().empty() ? "L" : spec.layer_pattern(),
            .kv_heads = spec.kv_heads(),
            .rotary_base = spec.rotary_base()};
  }

 private:
  int64_t FirstOfKind(bool kind) const {
    int64_t layer = 0;
    while (layer < layers && softmax(layer) != kind) {
      ++layer;
    }
    return layer;
  }
};

// What one rank computes on at a time.
struct MicroBatchShape {
  int64_t sequences = 0;
  int64_t tokens = 0;  // of each sequence, on this rank, at most
  // Of the sequences' last macro-chunk, where ranks may be given fewer tokens, or none.
  SequenceSlices last = {};

  int64_t rows() const { return sequences * tokens; }
};

}  // namespace lasp::worker
