#include <costate/autograd/ops.h>
#include <costate/finetune/regression/costates.h>

namespace costate::finetune {

Tensor state_cost_gradient(const ControlProblem& problem, int k, const Tensor& x) {
  if (!problem.state_cost) return {};
  Tape tape;
  const Var tracked = tape.watch(x), f = problem.state_cost(k, tracked);
  require(f.shape() == Shape{x.extent(0)}, "the state cost of step ", k, " has shape ", f.shape(), " for ", x.extent(0),
          " samples");
  return std::move(tape).vjp(f, Tensor::full(f.shape(), 1.0, f.dtype(), f.device()), {&tracked, 1})[0];
}

Tensor plus(Tensor a, const Tensor& b) { return b.defined() ? add(Var(std::move(a)), Var(b)).value() : a; }

Tensor base_prediction(const CostateInputs& in, int k, const Tensor& x) {
  return in.problem.base(Var(x), Var(sde::step_time(in.problem.chain, k, x)), in.labels).value();
}

void predict_below(const CostateInputs& in, const CostateVisitor& visit) {
  for (int k = in.first - 1; k >= 0; --k)
    if (in.predict && in.predict(k)) visit(k, base_prediction(in, k, in.state(k)), {}, {});
}

void lean_costates(const CostateInputs& in, Tensor a, const CostateVisitor& visit) {
  for (int k = in.problem.chain.steps() - 1; k >= in.first; --k) {
    const Tensor x = in.state(k);
    if (k == in.first && !in.at_first) {
      visit(k, in.predict && in.predict(k) ? base_prediction(in, k, x) : Tensor(), a, {});
      break;
    }
    sde::Pullback p = sde::pullback_step(in.problem.base, in.problem.chain, k, x, in.labels, a);
    p.costate = plus(std::move(p.costate), state_cost_gradient(in.problem, k, x));
    visit(k, p.prediction, a, p.costate);
    a = std::move(p.costate);
  }
  predict_below(in, visit);
}

}  // namespace costate::finetune
