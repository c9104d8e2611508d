#include <costate/autograd/ops.h>
#include <costate/finetune/regression/costates.h>

namespace costate::finetune {
namespace {

// What a grows by a unit of time, backwards, at x_j, and the base prediction there. Rates are those of the step that starts
// at x_j, or of the one before where that has no noise, or there is none.
struct Slope {
  Tensor value, prediction;
};
Slope slope(const CostateInputs& in, int j, const Tensor& a) {
  const sde::Chain& chain = in.problem.chain;
  const int step = j < chain.steps() && chain.std[j] > 0 ? j : j - 1;
  const double h = chain.t[step + 1] - chain.t[step], std = chain.std[step];
  const Tensor x = in.state(j);
  Tape tape;
  const Var tracked = tape.watch(x), t(Tensor::full({x.extent(0)}, chain.t[j], x.dtype(), x.device()));
  std::vector<Var> results{in.tuned(tracked, t, in.labels)};
  std::vector<Tensor> seeds{affine(Var(a), chain.C[step] / h, 0.0).value()};
  Tensor prediction;
  if (std > 0) {  // not in a noiseless run of steps before the last ones with noise
    const Var base = in.problem.base(tracked, t, in.labels);
    prediction = base.value();
    const double weight = in.kl_weights[static_cast<std::size_t>(step)] * chain.C[step] * chain.C[step] / (std * std * h);
    const Var difference = sub(Var(results[0].value()), Var(prediction));
    seeds[0] = axpby(1.0, Var(seeds[0]), weight, difference).value();
    seeds.push_back(affine(difference, -weight, 0.0).value());
    results.push_back(base);
  }
  const Tensor pulled = std::move(tape).vjp(results, seeds, {&tracked, 1})[0];
  Tensor value = axpby((chain.A[step] - 1) / h, Var(a), 1.0, Var(pulled)).value();
  if (const Tensor f = state_cost_gradient(in.problem, step, x); f.defined())
    value = axpby(1.0, Var(value), 1 / h, Var(f)).value();
  return {std::move(value), std::move(prediction)};
}

}  // namespace

void continuous_costates(const CostateInputs& in, Tensor a, const CostateVisitor& visit) {
  const sde::Chain& chain = in.problem.chain;
  int k = chain.steps() - 1;
  for (; k > in.first && chain.std[k] == 0; --k) {
    const sde::Pullback p = sde::pullback_step(in.tuned, chain, k, in.state(k), in.labels, a);
    Tensor before = plus(p.costate, state_cost_gradient(in.problem, k, in.state(k)));
    visit(k, {}, a, before);
    a = std::move(before);
  }
  // a is that of x_{k + 1}.
  const int lowest = in.at_first ? in.first + 1 : in.first + 2;  // the lowest state whose slope is needed
  Tensor rate;
  if (k + 1 >= lowest) rate = slope(in, k + 1, a).value;
  for (; k >= in.first; --k) {
    const Tensor next = a;
    Tensor here, prediction;
    if (rate.defined()) here = axpby(1.0, Var(a), chain.t[k + 1] - chain.t[k], Var(rate)).value();
    rate = {};
    if (k >= lowest) {
      Slope s = slope(in, k, here);
      rate = std::move(s.value), prediction = std::move(s.prediction);
    } else if (in.predict && in.predict(k)) {
      prediction = base_prediction(in, k, in.state(k));
    }
    visit(k, prediction, next, here);
    a = std::move(here);
  }
  predict_below(in, visit);
}

}  // namespace costate::finetune
