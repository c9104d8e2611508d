// A network in training with its optimiser and averaged weights: what every objective updates.
#pragma once
#include <costate/finetune/gradients.h>
#include <costate/finetune/training_state.h>
#include <costate/nn/optim.h>

#include <string>

namespace costate::finetune {

struct LearnerOptions {
  nn::AdamWOptions adamw{};
  nn::LearningRate lr{};
  double clip_norm = 1.0;  // largest norm of a gradient; 0: no clipping
  double ema_decay = 0.0;  // of the averaged weights; 0: none
};

class Learner {
 public:
  // `what` names the objective in errors.
  Learner(std::string what, nn::Network network, const LearnerOptions& options);

  struct Update {
    double gradient_norm, lr;
  };
  // Throws Error(Fault::numerical) when the loss or the gradient's norm is not finite (where the numbers can be read); the
  // parameters are then as before.
  Update update(const Gradients& gradients);

  // The same in parts, where a device computes and the host does not wait:
  //   prepare  what changes from update to update goes to the device; the parameters get their place
  //   launch   *squares, f64 (1) on the device, becomes the sum of the squares of all gradients; then the update, which changes
  //            nothing unless that number and *check are finite
  //   finish   what the host does when it knows the two numbers; throws as `update`
  void prepare();
  void launch(const std::vector<Tensor>& gradients, const Tensor& squares, const Tensor& check);
  Update finish(double loss, double squares);
  // Where parameters, moments and averages are, in the order in which they are walked.
  std::vector<const void*> addresses();

  const nn::Network& network() const { return network_; }
  nn::Network& network() { return network_; }
  nn::Network average() const;
  std::int64_t updates() const { return updates_; }
  void visit_state(StateVisitor& v);

 private:
  void require_finite(double loss, double gradient_norm) const;

  std::string what_;
  nn::Network network_;
  LearnerOptions options_;
  nn::AdamW optimiser_;
  nn::Ema ema_;
  std::int64_t updates_ = 0;
};

}  // namespace costate::finetune
