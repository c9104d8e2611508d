#include <costate/finetune/learner.h>

#include <cmath>

namespace costate::finetune {

Learner::Learner(std::string what, nn::Network network, const LearnerOptions& options)
    : what_(std::move(what)),
      network_(std::move(network)),
      options_(options),
      optimiser_(options.adamw),
      ema_(options.ema_decay, true) {
  require(network_.defined(), what_, ": the network to be tuned is undefined");
  require(options_.clip_norm >= 0, what_, ": clip_norm is ", options_.clip_norm, "; it must not be negative");
}

Learner::Update Learner::update(const Gradients& gradients) {
  const Update u{nn::gradient_norm(gradients.parameters), options_.lr(updates_)};
  const bool readable = gradients.parameters.empty() || !gradients.parameters[0].is_meta();
  if (readable && !(std::isfinite(gradients.loss) && std::isfinite(u.gradient_norm)))
    fail(Fault::numerical, {what_, ": update ", updates_, " has loss ", gradients.loss, " and gradient norm ", u.gradient_norm,
                            "; the parameters are those before it"});
  auto parameters = mutable_parameters(network_);
  optimiser_.step(parameters, gradients.parameters, u.lr, nn::clip_factor(u.gradient_norm, options_.clip_norm));
  ema_.update(nn::parameters(network_));
  ++updates_;
  return u;
}

void Learner::visit_state(StateVisitor& v) {
  v("network", network_), v("optimiser", optimiser_), v("average", ema_), v("updates", updates_);
}

nn::Network Learner::average() const {
  nn::Network copy = nn::clone(network_);
  if (!ema_.enabled() || ema_.average().empty()) return copy;
  std::size_t i = 0;
  nn::visit(copy, [&](const std::string&, Var& p) { p.value().copy_from(ema_.average()[i++]); });
  return copy;
}

}  // namespace costate::finetune
