#include <costate/autograd/ops.h>
#include <costate/finetune/evaluate/control_error.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <vector>

namespace costate::finetune {
namespace {

// Rows from x_0 along `drift`, in chunks. visit(k, first, x_k, drift_k, on) sees every step with the rows' masks, 1 while they
// run; finish(first, x_K) the ends.
template <class Drift, class Visit, class Finish>
void simulate(const ControlBenchmark& b, std::int64_t count, const sde::NoiseKey& key, DType dtype, Device device,
              const Drift& drift, const Visit& visit, const Finish& finish) {
  require(count >= 1, "control benchmark ", b.name, ": ", count, " paths were asked for");
  require(dtype == DType::f32 || dtype == DType::f64, "control benchmark ", b.name, ": states are f32 or f64, not ", dtype);
  sde::each_chunk(count, [&](std::int64_t first, std::int64_t rows) {
    const sde::NoiseKey own = key.from(first);
    Tensor x = broadcast_to(Var(Tensor::from(b.x0, {1, b.dim}, device).to(dtype)), {rows, b.dim}).value().clone();
    std::vector<double> on(static_cast<std::size_t>(rows), 1.0);
    for (int k = 0; k < b.steps(); ++k) {
      if (b.running) {
        const std::vector<double> now = b.running(x).to_doubles();
        for (std::size_t r = 0; r < on.size(); ++r) on[r] *= now[r];
      }
      const Tensor d = drift(k, x);
      require(d.shape() == x.shape(), "control benchmark ", b.name, ": the field maps shape ", x.shape(), " to ", d.shape());
      visit(k, first, x, d, on);
      Tensor next = sde::advance(b.chain, k, x, d, own);
      if (b.running) {
        const Var mask(Tensor::from(on, {rows, 1}, device).to(dtype));
        next = add(mul(mask, Var(next)), mul(affine(mask, -1, 1), Var(x))).value();
      }
      x = std::move(next);
    }
    finish(first, x);
  });
}

Tensor predict(const sde::Field& field, const ControlBenchmark& b, int k, const Tensor& x) {
  return field(Var(x), Var(sde::step_time(b.chain, k, x)), Tensor()).value();
}

double square_norm(const std::vector<double>& u, std::size_t row, std::size_t dim) {
  double sum = 0;
  for (std::size_t i = row * dim; i < (row + 1) * dim; ++i) sum += u[i] * u[i];
  return sum;
}

}  // namespace

ControlErrorEstimate control_error(const ControlBenchmark& b, const sde::Field& tuned, std::int64_t count,
                                   const sde::NoiseKey& key, DType dtype, Device device) {
  const auto n = static_cast<std::size_t>(std::max<std::int64_t>(count, 0)), dim = static_cast<std::size_t>(b.dim);
  std::vector<double> error(n, 0.0), optimal(n, 0.0);
  const double share = b.step() / (b.chain.t.back() - b.chain.t.front());  // h/T
  const auto best = [&](int k, const Tensor& x) {
    return add(Var(predict(b.base, b, k, x)), Var(b.optimal_control(b.chain.t[static_cast<std::size_t>(k)], x))).value();
  };
  const auto visit = [&](int k, std::int64_t first, const Tensor& x, const Tensor&, const std::vector<double>& on) {
    const Tensor best_control = b.optimal_control(b.chain.t[static_cast<std::size_t>(k)], x);
    const std::vector<double> u = best_control.to_doubles();
    const std::vector<double> off =
        sub(sub(Var(predict(tuned, b, k, x)), Var(predict(b.base, b, k, x))), Var(best_control)).value().to_doubles();
    for (std::size_t r = 0; r < on.size(); ++r) {
      error[static_cast<std::size_t>(first) + r] += share * on[r] * square_norm(off, r, dim);
      optimal[static_cast<std::size_t>(first) + r] += share * on[r] * square_norm(u, r, dim);
    }
  };
  simulate(b, count, key, dtype, device, best, visit, [](std::int64_t, const Tensor&) {});
  return {mean_estimate(error), mean_estimate(optimal)};
}

ControlObjective control_objective(const ControlBenchmark& b, const sde::Field& tuned, std::int64_t count,
                                   const sde::NoiseKey& key, DType dtype, Device device) {
  const auto n = static_cast<std::size_t>(std::max<std::int64_t>(count, 0)), dim = static_cast<std::size_t>(b.dim);
  std::vector<double> cost(n, 0.0), certificate(n, 0.0);
  const double h = b.step();
  const auto visit = [&](int k, std::int64_t first, const Tensor& x, const Tensor& drift, const std::vector<double>& on) {
    const std::vector<double> u = sub(Var(drift), Var(predict(b.base, b, k, x))).value().to_doubles();
    const std::vector<double> noise = sde::step_noise(k, x, key.from(first)).to_doubles();
    const std::vector<double> running = b.state_cost ? b.state_cost(k, Var(x)).value().to_doubles() : std::vector<double>();
    for (std::size_t r = 0; r < on.size(); ++r) {
      if (on[r] == 0) continue;
      const std::size_t row = static_cast<std::size_t>(first) + r;
      double martingale = 0;
      for (std::size_t i = r * dim; i < (r + 1) * dim; ++i)
        martingale += b.chain.std[static_cast<std::size_t>(k)] * u[i] * noise[i];
      const double step = h / 2 * square_norm(u, r, dim) + (running.empty() ? 0.0 : running[r]);
      cost[row] += step, certificate[row] += step + martingale;
    }
  };
  simulate(b, count, key, dtype, device, [&](int k, const Tensor& x) { return predict(tuned, b, k, x); }, visit,
           [&](std::int64_t first, const Tensor& x) {
             const std::vector<double> reward = b.reward(x).to_doubles();
             for (std::size_t r = 0; r < reward.size(); ++r) {
               cost[static_cast<std::size_t>(first) + r] -= reward[r];
               certificate[static_cast<std::size_t>(first) + r] -= reward[r];
             }
           });
  return {mean_estimate(cost), mean_estimate(certificate)};
}

}  // namespace costate::finetune
