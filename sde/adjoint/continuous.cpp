// The continuous adjoint of dX = b dt + sigma o dB (Stratonovich; Chen et al., arXiv 1806.07366; Li, Wong, Chen, Duvenaud,
// arXiv 2001.01328):
//   dA = -(db/dx)^T A dt - (dsigma/dx)^T A o dB,   dG = -(db/dtheta)^T A dt - (dsigma/dtheta)^T A o dB,
// solved backwards from A(1) = grad g by Heun's method on the grid of the forward solve, with the same Brownian path. With
// the increment F_j at the ends j of a step, a step backwards is
//   predictor  a~ = a + (dF_1/dx)^T a,              x~ = x - F_1(x)
//   corrector  a <- a + [(dF_1/dx)^T a + (dF_0/dx)^T a~]/2,   x <- x - [F_1(x) + F_0(x~)]/2.
// Backsolve takes x from these equations; the interpolated adjoint takes it from stored states.
#include <costate/autograd/ops.h>
#include <costate/sde/adjoint/methods.h>

namespace costate::sde::detail {
namespace {

Tensor plus(double a, const Tensor& x, double b, const Tensor& y) { return axpby(a, Var(x), b, Var(y)).value(); }

// Both ends of a step: the costate before it, and the parameters' share added to the sum. `start_of` gives the state at the
// start of the step from the increment at its end.
template <class StartOf>
Tensor heun_back(const Process& process, int k, const Tensor& x1, const Tensor& a, const StartOf& start_of, Gradient& result,
                 IncrementPullback& start) {
  IncrementPullback end = process.increment(k, true, x1, a);
  start = process.increment(k, false, start_of(end), plus(1, a, 1, end.costate));
  count(result.work, process.increment_work), count(result.work, process.increment_work);
  for (std::vector<Tensor>* g : {&end.parameters, &start.parameters})
    for (Tensor& t : *g) t = affine(Var(t), 0.5, 0.0).value();
  accumulate(result.parameters, std::move(end.parameters));
  accumulate(result.parameters, std::move(start.parameters));
  return plus(1, a, 0.5, plus(1, end.costate, 1, start.costate));
}

}  // namespace

Gradient backsolve(const Process& process, const Tensor& x0, const Terminal& terminal, const AdjointOptions& options) {
  Gradient result;
  State state = run_forwards(process, x0, result);
  Tensor x = state[0], a = terminal(x);
  state.clear();
  for (int k = process.steps - 1; k >= 0; --k) {
    if (options.visit) options.visit(k, x, a);
    Tensor first, before;
    IncrementPullback start;
    a = heun_back(
        process, k, x, a,
        [&](const IncrementPullback& end) {
          first = end.increment;
          return plus(1, x, -1, end.increment);
        },
        result, start);
    x = plus(1, x, -0.5, plus(1, first, 1, start.increment));
    ++result.work.recomputed;
  }
  result.initial = std::move(a);
  return result;
}

Gradient interpolated(const Process& process, const Tensor& x0, const Terminal& terminal, const AdjointOptions& options) {
  Gradient result;
  const int every = std::max(1, options.segment), steps = process.steps;
  std::vector<Tensor> kept;  // x_0, x_s, ..., and x_K
  State state = process.start(x0);
  count(result.work, process.start_work);
  for (int k = 0; k < steps; ++k) {
    if (k % every == 0) {
      state[0].storage().charge_to(memory::Tag::trajectory);
      kept.push_back(state[0]);
    }
    state = process.step(k, state);
    count(result.work, process.step_work);
  }
  kept.push_back(state[0]);
  result.x = state[0];
  Tensor a = terminal(state[0]);
  state.clear();
  // Between kept states the cubic of Hermite with the derivatives of the equation at both ends; they are the increments
  // per step there, so that the interval has the length n in these units.
  Tensor from, to, slope_from, slope_to;
  int first = steps, last = steps;
  const auto at = [&](int k) -> Tensor {
    if (k == last) return to;
    if (k == first) return from;
    const double n = last - first, u = (k - first) / n, v = 1 - u;
    return plus(1, plus((1 + 2 * u) * v * v, from, n * u * v * v, slope_from), 1,
                plus(u * u * (3 - 2 * u), to, -n * u * u * v, slope_to));
  };
  for (int k = steps - 1; k >= 0; --k) {
    if (k < first) {
      last = first, first = k / every * every;
      to = kept.back();
      kept.pop_back();
      from = kept.back();
      if (last - first > 1) {
        slope_from = process.increment(first, false, from, a).increment;
        slope_to = process.increment(last - 1, true, to, a).increment;
        count(result.work, process.increment_work), count(result.work, process.increment_work);
      }
    }
    const Tensor x = at(k + 1);
    if (options.visit) options.visit(k, x, a);
    IncrementPullback start;
    a = heun_back(process, k, x, a, [&](const IncrementPullback&) { return at(k); }, result, start);
  }
  result.initial = std::move(a);
  return result;
}

}  // namespace costate::sde::detail
