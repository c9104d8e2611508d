// The multilayer perceptron as a velocity network (or of any other parametrisation: it maps (x, t, class) to
// x's shape), and as a classifier.
#pragma once
#include <costate/nn/embed.h>

namespace costate::nn {

struct MlpOptions {
  std::int64_t dim = 2;       // features of a sample, flattened
  std::int64_t hidden = 128;  // width of the hidden layers
  int depth = 3;              // number of hidden layers, at least 1
  Activation activation = Activation::silu;
  int time_frequencies = 8;       // Fourier features of t; 0: t itself
  std::int64_t classes = 0;       // 0: unconditional
  std::int64_t class_width = 16;  // of the class vectors
  bool residual = false;          // hidden layers after the first add to their input
  bool norm = false;              // layer norm with scale and shift before hidden layers after the first
};

// Scale and shift after layer normalisation: y = norm(x) * weight + bias.
struct LayerNorm {
  Var weight, bias;  // (width,)
  double eps = 1e-5;
  Var operator()(const Var& x) const { return multiply_add(layer_norm(x, eps), weight, bias); }
  void visit(const Visitor& v) {
    v("weight", weight);
    v("bias", bias);
  }
};

// x (rows, ...) with `dim` features a row, t (rows,), labels (rows,) or undefined -> (rows, ...).
struct VelocityMlp {
  MlpOptions options;
  ClassEmbedding embedding;  // undefined without classes
  std::vector<Linear> layers;
  std::vector<LayerNorm> norms;  // of layers[1..], if options.norm
  Linear output;                 // starts at zero: the first prediction is 0
  bool recompute = false;        // compute activations again in the sweep, see nn/recompute.h: a block is a run of
                                 // ceil(sqrt(depth)) hidden layers

  Var operator()(const Var& x, const Var& t, const Tensor& labels) const;
  VelocityMlp recompute_blocks(bool on = true) const;
  void visit(const Visitor& v);
};
VelocityMlp make_velocity_mlp(const MlpOptions& options, Init& init);

// x (rows, ...) -> logits (rows, classes); features(x) is the last hidden layer, for Fréchet distances.
struct Classifier {
  std::vector<Linear> layers;
  Linear output;
  Var features(const Var& x) const;
  Var operator()(const Var& x) const { return output(features(x)); }
  void visit(const Visitor& v) {
    v("layers", layers);
    v("output", output);
  }
};
Classifier make_classifier(std::int64_t dim, std::int64_t hidden, int depth, std::int64_t classes,
                           Init& init);

// The mean cross-entropy of logits (rows, classes) against labels (rows,), a scalar.
Var cross_entropy(const Var& logits, const Tensor& labels);
// log p(label | x) by row: logits (rows, classes) -> (rows,).
Var log_likelihood(const Var& logits, const Tensor& labels);

}  // namespace costate::nn
