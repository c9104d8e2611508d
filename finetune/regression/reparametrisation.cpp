#include <costate/finetune/regression/reparametrisation.h>

#include <costate/autograd/ops.h>
#include <costate/nn/linear.h>

#include <cmath>

namespace costate::finetune {
namespace {

// N(t, s) and gamma; called with (pairs, 2) rows of (t, s), of which t of the call is t: (pairs, dim, dim) = M.
struct MatrixNetwork {
  std::int64_t dim = 1;
  std::vector<nn::Linear> layers;
  nn::Linear output;
  Var log_gamma;  // (1,)

  Var operator()(const Var& pairs, const Var&, const Tensor&) const {
    const std::int64_t n = pairs.extent(0);
    Var h = pairs;
    for (const nn::Linear& layer : layers) h = layer(h);
    const Var free = reshape(output(h), {n, dim, dim});
    const Var distance = sub(narrow(pairs, 1, 1, 1), narrow(pairs, 1, 0, 1));  // (pairs, 1)
    const Var decay = reshape(exp(neg(mul(distance, exp(log_gamma)))), {n, 1, 1});
    std::vector<float> one(static_cast<std::size_t>(dim * dim));
    for (std::int64_t i = 0; i < dim; ++i) one[static_cast<std::size_t>(i * dim + i)] = 1;
    const Var unit(Tensor::from(one, {1, dim, dim}, pairs.device()));
    return add(free, mul(decay, sub(unit, free)));
  }
  void visit(const nn::Visitor& v) {
    v("layers", layers);
    v("output", output);
    v("log_gamma", log_gamma);
  }
};

}  // namespace

Reparametrisation::Reparametrisation(const ControlProblem& problem, const ReparametrisationOptions& o, std::uint64_t seed)
    : chain_(problem.chain), dim_(problem.sample_shape.numel()), device_(problem.device) {
  const std::vector<int> controlled = problem.controlled_steps();
  horizon_ = controlled.back() + 1;
  require(static_cast<int>(controlled.size()) == horizon_, "stochastic optimal control matching: a step without noise, which "
          "cannot be reparametrised, comes before step ", horizon_ - 1, " of the chain '", problem.chain.description,
          "', which has noise; only the last steps may be without");
  if (!o.learned) return;
  require(dim_ <= largest_reparametrised_dim, "stochastic optimal control matching: samples have ", dim_,
          " features; its matrices are for at most ", largest_reparametrised_dim,
          ": take costates without learnt matrices (learned = false, or the lean adjoint with path weights)");
  require(o.gamma > 0 && o.hidden >= 1 && o.scale >= 0, "stochastic optimal control matching: gamma ", o.gamma, ", hidden ",
          o.hidden, ", scale ", o.scale, "; expected gamma > 0, hidden >= 1 and scale >= 0");
  const memory::TagScope scope(memory::Tag::parameters);
  nn::Init init(seed, DType::f32, device_);
  MatrixNetwork network;
  network.dim = dim_;
  network.layers.push_back(nn::make_linear(init, 2, o.hidden, Activation::silu, std::sqrt(2.0)));
  network.layers.push_back(nn::make_linear(init, o.hidden, o.hidden, Activation::silu, std::sqrt(2.0)));
  network.output = nn::make_linear(init, o.hidden, dim_ * dim_, Activation::none, o.scale);
  network.log_gamma = Var(init.full({1}, std::log(o.gamma)));
  learner_.emplace("the reparametrisation matrices", nn::Network(std::move(network)), o.learner);
}

Reparametrisation::Terms Reparametrisation::terms(const CostateInputs& in, Tensor a,
                                                  const std::function<Tensor(int, const Tensor&)>& noise,
                                                  const CostateVisitor& visit) const {
  Terms out;
  out.own.resize(static_cast<std::size_t>(horizon_) + 1), out.later.resize(out.own.size());
  for (int k = chain_.steps() - 1; k >= horizon_; --k) {
    sde::Pullback p = sde::pullback_step(in.problem.base, chain_, k, in.state(k), in.labels, a);
    visit(k, p.prediction, {}, {});
    a = plus(std::move(p.costate), state_cost_gradient(in.problem, k, in.state(k)));
  }
  out.own[static_cast<std::size_t>(horizon_)] = a;
  for (int j = horizon_ - 1; j >= 1; --j) {
    const auto at = static_cast<std::size_t>(j);
    const Tensor x = in.state(j);
    Tape tape;
    const Var tracked = tape.watch(x), prediction = in.problem.base(tracked, Var(sde::step_time(chain_, j, x)), in.labels);
    const Tensor q = affine(Var(noise(j, prediction.value())), 1 / chain_.std[at], 0.0).value();
    const Tensor pulled = std::move(tape).vjp(prediction, q, {&tracked, 1})[0];
    out.later[at + 1] = add(Var(out.own[at + 1]), Var(q)).value();
    out.own[at] = plus(axpby(-chain_.A[at], Var(q), -chain_.C[at], Var(pulled)).value(),
                       state_cost_gradient(in.problem, j, x));
    visit(j, prediction.value(), {}, {});
  }
  visit(0, base_prediction(in, 0, in.state(0)), {}, {});
  return out;
}

Var Reparametrisation::matrices(const nn::Network& network, int k, int first, int count) const {
  std::vector<float> pairs;
  for (int j = first; j < first + count; ++j) {
    pairs.push_back(static_cast<float>(chain_.t[static_cast<std::size_t>(k)]));
    pairs.push_back(static_cast<float>(chain_.t[static_cast<std::size_t>(j)]));
  }
  return network(Var(Tensor::from(pairs, {count, 2}, device_)), Var(), Tensor());
}

Var Reparametrisation::costate(const nn::Network* network, int k, const Tensor& own, const Tensor& later) const {
  const Var alone(own[k + 1]);
  const int count = horizon_ - (k + 1);
  if (count == 0) return alone;
  const Var terms(later.slice(k + 2, count));
  return add(alone, sum(network ? matmul(terms, matrices(*network, k + 1, k + 2, count)) : terms, 0));
}

}  // namespace costate::finetune
