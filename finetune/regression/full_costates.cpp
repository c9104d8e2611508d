#include <costate/autograd/ops.h>
#include <costate/finetune/regression/costates.h>

namespace costate::finetune {

void full_costates(const CostateInputs& in, Tensor a, const CostateVisitor& visit) {
  const sde::Chain& chain = in.problem.chain;
  for (int k = chain.steps() - 1; k >= in.first; --k) {
    const Tensor x = in.state(k);
    if (k == in.first && !in.at_first) {
      visit(k, in.predict && in.predict(k) ? base_prediction(in, k, x) : Tensor(), a, {});
      break;
    }
    Tape tape;
    const Var tracked = tape.watch(x), t(sde::step_time(chain, k, x));
    std::vector<Var> results{in.tuned(tracked, t, in.labels)};
    std::vector<Tensor> seeds{affine(Var(a), chain.C[k], 0.0).value()};
    Tensor prediction;
    if (chain.std[k] > 0) {
      // |u|^2/2 with u = (C/std) (tuned - base): its gradient reaches x through both predictions.
      const Var base = in.problem.base(tracked, t, in.labels);
      prediction = base.value();
      const double scale = chain.C[k] / chain.std[k], weight = in.kl_weights[static_cast<std::size_t>(k)] * scale * scale;
      Var difference = sub(Var(results[0].value()), Var(prediction));
      if (in.noise) difference = axpby(1.0, difference, 1 / scale, Var(in.noise(k)));  // u + e for u
      seeds[0] = axpby(1.0, Var(seeds[0]), weight, difference).value();
      seeds.push_back(affine(difference, -weight, 0.0).value());
      results.push_back(base);
    }
    const Tensor pulled = std::move(tape).vjp(results, seeds, {&tracked, 1})[0];
    Tensor before = plus(axpby(chain.A[k], Var(a), 1.0, Var(pulled)).value(), state_cost_gradient(in.problem, k, x));
    visit(k, prediction, a, before);
    a = std::move(before);
  }
  predict_below(in, visit);
}

}  // namespace costate::finetune
