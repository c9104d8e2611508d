// Policy iteration on a grid of the line.
#include <costate/finetune/regression/policy_iteration.h>
#include <costate/sde/step.h>
#include <costate/tensor/parallel.h>

#include <algorithm>
#include <cmath>

namespace costate::finetune {
namespace {

// Where a point of the line lies on a uniform grid: between i and i + 1, at the share `w` of the way.
struct Place {
  std::size_t i;
  double w;
};
Place place(double low, double step, std::size_t points, double at) {
  const double u = (at - low) / step;
  const auto i = static_cast<std::size_t>(std::clamp(std::floor(u), 0.0, static_cast<double>(points) - 2));
  return {i, u - static_cast<double>(i)};  // outside w leaves [0, 1]
}

// The natural cubic spline of values on a uniform grid, and its slopes there (de Boor 1978, chapter IV: the slopes solve a
// tridiagonal system).
class Spline {
 public:
  Spline(double low, double step, std::vector<double> y) : low_(low), step_(step), y_(std::move(y)), slope_(y_.size()) {
    const std::size_t n = y_.size();
    std::vector<double> diagonal(n), upper(n);
    const auto right = [&](std::size_t i) {
      if (i == 0) return 3 * (y_[1] - y_[0]) / step_;
      if (i == n - 1) return 3 * (y_[n - 1] - y_[n - 2]) / step_;
      return 3 * (y_[i + 1] - y_[i - 1]) / step_;
    };
    diagonal[0] = 2, slope_[0] = right(0);
    for (std::size_t i = 1; i < n; ++i) {
      const double factor = 1 / diagonal[i - 1];
      diagonal[i] = (i == n - 1 ? 2.0 : 4.0) - factor;
      slope_[i] = right(i) - factor * slope_[i - 1];
    }
    slope_[n - 1] /= diagonal[n - 1];
    for (std::size_t i = n - 1; i-- > 0;) slope_[i] = (slope_[i] - slope_[i + 1]) / diagonal[i];
  }

  double value(double at) const {
    const auto [i, w] = place(low_, step_, y_.size(), at);
    if (w < 0) return y_[0] + slope_[0] * w * step_;
    if (w > 1) return y_[i + 1] + slope_[i + 1] * (w - 1) * step_;
    const double v = 1 - w;
    return v * v * (1 + 2 * w) * y_[i] + w * w * (1 + 2 * v) * y_[i + 1] + step_ * w * v * (v * slope_[i] - w * slope_[i + 1]);
  }
  double derivative(double at) const {
    const auto [i, w] = place(low_, step_, y_.size(), at);
    if (w <= 0) return slope_[0];
    if (w >= 1) return slope_[i + 1];
    return 6 * w * (1 - w) * (y_[i + 1] - y_[i]) / step_ + (1 - w) * (1 - 3 * w) * slope_[i] + w * (3 * w - 2) * slope_[i + 1];
  }
  // The second derivatives at the points of the grid: the extremes, as it is linear between.
  std::pair<double, double> curvature() const {
    double low = 0, high = 0;  // straight outside
    for (std::size_t i = 0; i + 1 < y_.size(); ++i) {
      const double c = (6 * (y_[i + 1] - y_[i]) / step_ - 4 * slope_[i] - 2 * slope_[i + 1]) / step_;
      low = std::min(low, c), high = std::max(high, c);
    }
    return {low, high};
  }
  const std::vector<double>& values() const { return y_; }
  const std::vector<double>& slopes() const { return slope_; }

 private:
  double low_, step_;
  std::vector<double> y_, slope_;
};

double interpolated(const std::vector<double>& x, const std::vector<double>& y, double at) {
  const auto [i, w] = place(x[0], x[1] - x[0], x.size(), at);
  return y[i] + w * (y[i + 1] - y[i]);
}

}  // namespace

double GridPolicy::shift_at(int k, double at) const { return interpolated(x, shift[static_cast<std::size_t>(k)], at); }
double GridPolicy::slope_at(int k, double at) const { return interpolated(x, slope[static_cast<std::size_t>(k)], at); }

GridPolicy iterate_policy(const ControlProblem& problem, const GridPolicyOptions& o) {
  problem.check("iterate_policy");
  require(problem.sample_shape.numel() == 1, "iterate_policy: samples have shape ", problem.sample_shape,
          "; a grid is for one feature");
  require(o.points >= 4 && o.low < o.high && o.nodes >= 3, "iterate_policy: ", o.points, " points from ", o.low, " to ", o.high,
          " and ", o.nodes, " nodes; expected at least 4 points of an interval, and 3 nodes");
  const sde::Chain& chain = problem.chain;
  const auto steps = static_cast<std::size_t>(chain.steps()), points = static_cast<std::size_t>(o.points);
  const double step = (o.high - o.low) / (o.points - 1);
  const PolicyIterationOptions& it = o.iteration;
  require(it.kl_weights.size() <= 1 || it.kl_weights.size() == steps, "iterate_policy: found ", it.kl_weights.size(),
          " kl_weights; expected none, one, or one a step, ", steps);
  require(!it.visit, "iterate_policy: the points of a grid are iterated apart from each other; there is no `visit`");
  GridPolicy out;
  for (std::size_t i = 0; i < points; ++i) out.x.push_back(o.low + step * static_cast<double>(i));
  out.value.resize(steps + 1), out.slope.resize(steps + 1), out.kappa.resize(steps);
  out.shift.assign(steps, std::vector<double>(points));
  const Tensor grid = Tensor::from(out.x, problem.sample_shape.with_front(o.points));
  std::vector<double> node, mass;
  double total = 0;
  for (int i = 0; i < o.nodes; ++i) {
    node.push_back(-7 + 14.0 * i / (o.nodes - 1));
    total += mass.emplace_back(std::exp(-node.back() * node.back() / 2));
  }
  for (double& m : mass) m /= total;

  std::vector<double> v = problem.reward(grid).to_doubles();
  for (double& e : v) e *= problem.reward_multiplier;
  Spline next(o.low, step, std::move(v));
  out.value[steps] = next.values(), out.slope[steps] = next.slopes();
  for (std::size_t k = steps; k-- > 0;) {
    const int number = static_cast<int>(k);
    const std::vector<double> prediction =
        problem.base(Var(grid), Var(sde::step_time(chain, number, grid)), Tensor()).value().to_doubles();
    std::vector<double> cost(points);
    if (problem.state_cost) cost = problem.state_cost(number, Var(grid)).value().to_doubles();
    const double std = chain.std[k];
    const double b = it.kl_weights.empty() ? 1.0 : it.kl_weights[it.kl_weights.size() == 1 ? 0 : k], s = std * std / b;
    require(b > 0, "iterate_policy: found ", b, " among kl_weights; expected numbers above 0");
    const auto [low, high] = next.curvature();
    out.kappa[k] = {s * low, s * high};
    if (out.kappa[k].highest >= 1)
      fail(Fault::numerical, {"iterate_policy: at step ", number, " std^2/b times the curvature of the value reaches ",
                              out.kappa[k].highest, "; from 1 on the step has no optimum"});
    const double w = it.damping && out.kappa[k].lowest < 0 ? 1 / (1 - out.kappa[k].lowest) : 1.0;
    std::vector<double> value(points);
    std::vector<std::uint8_t> stands(points, 1);
    parallel_for(o.points, 64, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        const double mean = chain.A[k] * out.x[i] + chain.C[k] * prediction[i];
        double& d = out.shift[k][i];
        if (std > 0) {
          stands[i] = 0;
          for (int n = 0; n < it.iterations && !stands[i]; ++n) {
            double slope = 0;
            for (std::size_t j = 0; j < node.size(); ++j) slope += mass[j] * next.derivative(mean + d + std * node[j]);
            const double change = w * (s * slope - d);
            d += change;
            stands[i] = std::abs(change) <= it.tolerance * (1 + std::abs(d));
          }
        }
        double expected = 0;
        if (std > 0)
          for (std::size_t j = 0; j < node.size(); ++j) expected += mass[j] * next.value(mean + d + std * node[j]);
        else
          expected = next.value(mean);
        value[i] = expected - (std > 0 ? d * d / (2 * s) : 0.0) - cost[i];
      }
    });
    if (std::find(stands.begin(), stands.end(), 0) != stands.end())
      fail(Fault::numerical, {"iterate_policy: step ", number, " has not converged in ", it.iterations, " iterations; kappa ",
                              "reaches ", out.kappa[k].lowest, ", and below -1 the iteration needs damping"});
    next = Spline(o.low, step, std::move(value));
    out.value[k] = next.values(), out.slope[k] = next.slopes();
  }
  return out;
}

}  // namespace costate::finetune
