// A value network of states, V(x, t) ~ E[R_k | x_k = x] at t = t_k, and its training: the baseline of policy gradients.
//   V = offset + gain (shift + scale F(x, t)),   F a multilayer perceptron, shift and scale the mean and deviation of the first
// returns it sees. Plainly offset = 0 and gain = 1; with the skip parametrisation of arXiv 2502.01819
//   V = cos(pi (1 - t)/2) lambda r(E[x_1 | x]) + sin(pi (1 - t)/2) (shift + scale F),
// which is exact at t = 1.
#pragma once
#include <costate/finetune/gradients.h>
#include <costate/finetune/training_state.h>
#include <costate/nn/embed.h>
#include <costate/nn/optim.h>

#include <span>

namespace costate::finetune {

struct CriticOptions {
  std::vector<std::int64_t> widths{64, 64};  // of the hidden layers
  // Hidden layers without a nonlinearity, and fresh weights from N(0, 1/(in + 1)^2), as the code of arXiv 2402.08552 has them;
  // else rectifiers, and weights that keep their scale (He et al. 2015).
  bool linear = false;
  int time_frequencies = 4;  // Fourier features of t beside the input; 0: the critic is not told the time
  double dropout = 0;        // of hidden layers in training
  bool skip = false;         // asks the reward at every state of a path

  double lr = 1e-3, clip_norm = 1.0;
  nn::AdamWOptions adamw{};
  // Updates an iteration, on `batch` random (path, step) each; 0: one with every update of the policy, on its entries.
  std::int64_t updates = 0, batch = 256;
  std::int64_t warmup = 0;  // iterations in which the critic alone learns
  // max(residual^2, clipped residual^2) with V cut to +-value_clip (in units of `scale`) about what it was when the paths
  // were made (Schulman et al.'s implementation of PPO); 0: the square alone.
  double value_clip = 0;

  // Neurons that are made anew every `reset_every` iterations, by their score (neuron_reset.h).
  enum class Reset : std::uint8_t { none, active, dormant, all } reset = Reset::none;
  std::int64_t reset_every = 10;
  double threshold = 0;  // a score up to this is dormant
};

// F: (rows, inputs) -> (rows,).
struct ValueMlp {
  std::vector<nn::Linear> hidden;
  nn::Linear output;
  nn::ClassEmbedding embedding;  // undefined without labels
  int time_frequencies = 4;
  double dropout = 0;

  // x (rows, features), t (rows,), labels (rows,) or undefined. `key` gives dropout its masks; null: none.
  Var operator()(const Var& x, const Var& t, const Tensor& labels, const nn::DropoutKey* key = nullptr) const;
  // What the first hidden layer sees.
  Var inputs(const Var& x, const Var& t, const Tensor& labels) const;
  void visit(const nn::Visitor& v) {
    v("hidden", hidden);
    v("output", output);
    v("embedding", embedding);
  }
};
// A layer of the critic as it is at the beginning.
nn::Linear fresh_critic_layer(nn::Init& init, std::int64_t in, std::int64_t out, bool linear, bool last);

// What the critic is asked at: some (path, step), row by row.
struct CriticRows {
  Tensor x;       // (rows, features)
  Tensor t;       // (rows,)
  Tensor labels;  // (rows,) or undefined
  std::vector<double> gain, offset;  // (rows) or empty: 1 and 0
};
struct CriticTargets {
  std::vector<double> target, old;  // (rows): returns, and V when the paths were made (for value_clip)
  std::int64_t paths = 1;           // what the loss is a mean over
};

class Critic {
 public:
  // `features` numbers a state; labels 0..classes-1, classes 0 without.
  Critic(const CriticOptions& options, std::int64_t features, std::int64_t classes, std::uint64_t seed, Device device);

  bool calibrated() const { return calibrated_; }
  void calibrate(double shift, double scale);

  std::vector<double> values(const CriticRows& rows) const;  // on the meta device zeros
  // One update of sum_i (V_i - target_i)^2/(2 scale^2) / paths; the loss. Throws Error(numerical) when it is not finite.
  double update(const CriticRows& rows, const CriticTargets& targets);
  // The share of neurons that are dormant on these rows; then, if `due`, the reset that the options ask for.
  double reset(const CriticRows& rows, bool due);

  const ValueMlp& network() const { return network_; }
  ValueMlp& network() { return network_; }
  nn::AdamW& optimiser() { return optimiser_; }
  std::int64_t updates() const { return updates_; }
  void visit_state(StateVisitor& v);

 private:
  CriticOptions options_;
  std::uint64_t seed_;
  ValueMlp network_;
  nn::AdamW optimiser_;
  double shift_ = 0, scale_ = 1;
  bool calibrated_ = false;
  std::int64_t updates_ = 0, resets_ = 0;
};

}  // namespace costate::finetune
