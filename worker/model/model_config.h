// The shape of a model, as the engine needs it.
#pragma once

#include <cstdint>

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
  // With tensor parallelism: the ranks that share out heads and the MLP's columns, which divide
  // both, and this one's place among them. The sizes above are of the whole model.
  int tensor_ranks = 1;
  int tensor_rank = 0;

  int64_t head_size() const { return hidden_size / heads; }

  // What this rank has of them, and the columns of its heads.
  int64_t own_heads() const { return heads / tensor_ranks; }

  int64_t own_width() const { return own_heads() * head_size(); }

  int64_t own_glu_size() const { return glu_size / tensor_ranks; }

  // Columns of a mixer's projection here: queries, keys, values, and the gate where there is one.
  int64_t projection_size() const { return (linear_transformer ? 3 : 4) * own_width(); }

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
            .init_std = spec.init_std()};
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
