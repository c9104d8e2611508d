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
  if (readable) require_finite(gradients.loss, u.gradient_norm);
  auto parameters = mutable_parameters(network_);
  optimiser_.step(parameters, gradients.parameters, u.lr, nn::clip_factor(u.gradient_norm, options_.clip_norm));
  ema_.update(nn::parameters(network_));
  ++updates_;
  return u;
}

void Learner::visit_state(StateVisitor& v) {
  v("network", network_), v("optimiser", optimiser_), v("average", ema_), v("updates", updates_);
}

void Learner::require_finite(double loss, double gradient_norm) const {
  if (!(std::isfinite(loss) && std::isfinite(gradient_norm)))
    fail(Fault::numerical, {what_, ": update ", updates_, " has loss ", loss, " and gradient norm ", gradient_norm,
                            "; the parameters are those before it"});
}

void Learner::prepare() {
  const auto parameters = mutable_parameters(network_);
  std::vector<Tensor> values;
  for (Tensor* p : parameters) p->unshare();
  for (Tensor* p : parameters) values.push_back(*p);
  const double weight = ema_.prepare(values);
  values.clear();  // or the parameters would be shared
  optimiser_.prepare(parameters, {options_.lr(updates_), 1.0, options_.clip_norm, weight});
}

void Learner::launch(const std::vector<Tensor>& gradients, const Tensor& squares, const Tensor& check) {
  std::vector<Elements> pieces;
  for (const Tensor& g : gradients) {
    require(g.defined() && g.dtype() == gradients[0].dtype(), what_, ": gradients of several element types");
    pieces.push_back({g.raw(), g.numel()});
  }
  if (pieces.empty()) return;
  kernels(squares).sum_squares(gradients[0].dtype(), static_cast<std::int64_t>(pieces.size()), pieces.data(),
                               static_cast<double*>(squares.raw_mutable()));
  const auto parameters = mutable_parameters(network_);
  optimiser_.launch(parameters, gradients, ema_.average(), squares, check);
}

Learner::Update Learner::finish(double loss, double squares) {
  const Update u{std::sqrt(squares), options_.lr(updates_)};
  require_finite(loss, u.gradient_norm);
  optimiser_.commit(), ++updates_;
  if (ema_.enabled()) ema_.commit();
  return u;
}

std::vector<const void*> Learner::addresses() {
  std::vector<const void*> list;
  for (Tensor* p : mutable_parameters(network_)) list.push_back(p->raw());
  for (const std::vector<Tensor>* part : {&optimiser_.first_moments(), &optimiser_.second_moments()})
    for (const Tensor& t : *part) list.push_back(t.raw());
  for (const Tensor& t : ema_.average()) list.push_back(t.raw());
  return list;
}

nn::Network Learner::average() const {
  nn::Network copy = nn::clone(network_);
  if (!ema_.enabled() || ema_.average().empty()) return copy;
  std::size_t i = 0;
  nn::visit(copy, [&](const std::string&, Var& p) { p.value().copy_from(ema_.average()[i++]); });
  return copy;
}

}  // namespace costate::finetune
