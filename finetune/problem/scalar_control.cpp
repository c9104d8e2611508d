#include <costate/finetune/problem/scalar_control.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <utility>

namespace costate::finetune {
namespace {

// (1 - h L) y = x for the tridiagonal L of the generator, factored once.
class ImplicitStep {
 public:
  ImplicitStep(const ScalarControlProblem& p, const UniformGrid& grid, double h) {
    const std::size_t n = grid.points();
    const double width = grid.width();
    std::vector<double> diagonal(n, 1.0), upper(n, 0.0);
    lower_.assign(n, 0.0);
    for (std::size_t i = 0; i < n; ++i) {
      if (p.stops_at_high && i + 1 == n) continue;  // psi = 1 where the process has stopped
      const double x = grid.point(i), at = p.potential(x), cell = i == 0 || i + 1 == n ? width / 2 : width;
      const auto flux = [&](double face) { return h * std::exp(-2 * (p.potential(face) - at)) / (2 * width * cell); };
      if (i > 0) lower_[i] = -flux(x - width / 2);
      if (i + 1 < n) upper[i] = -flux(x + width / 2);
      diagonal[i] += h * p.running(x) - lower_[i] - upper[i];
    }
    inverse_.resize(n), upper_.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
      inverse_[i] = 1 / (diagonal[i] - (i > 0 ? lower_[i] * upper_[i - 1] : 0.0));
      upper_[i] = upper[i] * inverse_[i];
    }
  }

  void solve(std::vector<double>& x) const {
    const std::size_t n = x.size();
    x[0] *= inverse_[0];
    for (std::size_t i = 1; i < n; ++i) x[i] = (x[i] - lower_[i] * x[i - 1]) * inverse_[i];
    for (std::size_t i = n - 1; i-- > 0;) x[i] -= upper_[i] * x[i + 1];
  }

 private:
  std::vector<double> lower_, upper_, inverse_;
};

double well(double x) { return (x * x - 1) * (x * x - 1); }

}  // namespace

ScalarControlProblem double_well(double kappa, double nu) {
  return {[kappa](double x) { return kappa * well(x); }, [](double) { return 0.0; }, [nu](double x) { return nu * well(x); }};
}

ScalarControlProblem well_exit(double kappa) {
  return {[kappa](double x) { return kappa * well(x); },
          [](double) { return 1.0; },
          [](double) { return 0.0; },
          {-2.75, 0, 500},
          true};
}

double chain_optimal_cost(const ScalarControlProblem& p, double x0, int steps) {
  p.grid.check("chain_optimal_cost");
  require(steps >= 1, "chain_optimal_cost: ", steps, " steps, expected at least 1");
  require(x0 >= p.grid.low && x0 <= p.grid.high, "chain_optimal_cost: x0 is ", x0, ", outside of the grid");
  const double width = p.grid.width(), h = p.horizon / steps, s = std::sqrt(h);
  require(width < s, "chain_optimal_cost: the grid's width ", width, " is not below sqrt(h) = ", s);
  const auto band = static_cast<std::ptrdiff_t>(8.5 * s / width) + 1, points = static_cast<std::ptrdiff_t>(p.grid.points());
  std::vector<double> mean, value;
  for (std::size_t i = 0; i < p.grid.points(); ++i) {
    const double x = p.grid.point(i), e = 1e-3;  // a difference over five points, exact for potentials of degree 4
    mean.push_back(x - h * (p.potential(x - 2 * e) - 8 * p.potential(x - e) + 8 * p.potential(x + e) - p.potential(x + 2 * e)) /
                           (12 * e));
    require(mean.back() >= p.grid.low && mean.back() <= p.grid.high + s, "chain_optimal_cost: a step of ", h,
            " without noise leads from ", x, " to ", mean.back(), ", off the grid from ", p.grid.low, " to ", p.grid.high);
    value.push_back(p.terminal(x));
  }
  std::vector<double> weight;
  for (std::ptrdiff_t j = -band; j <= band; ++j)
    weight.push_back(width / (s * std::sqrt(2 * std::numbers::pi)) *
                     std::exp(-std::pow(static_cast<double>(j) * width / s, 2) / 2));
  // S(y) = E V(y + sqrt(h) e) is smooth beyond the end at which V jumps to 0, where good controls may lead.
  UniformGrid wide = p.grid;
  wide.cells += static_cast<int>(band), wide.high += static_cast<double>(band) * width;
  for (int k = 0; k < steps; ++k) {
    const GridFunction v(p.grid, value);
    std::vector<double> extended;  // from `band` points below the grid to 2 band above it
    for (std::ptrdiff_t i = -band; i < points + 2 * band; ++i) {
      if (p.stops_at_high && i >= points)
        extended.push_back(0);
      else
        extended.push_back(i >= 0 && i < points ? value[static_cast<std::size_t>(i)]
                                                : v(p.grid.low + width * static_cast<double>(i)));
    }
    if (p.stops_at_high) {
      const double gregory[] = {3.0 / 8, 7.0 / 6, 23.0 / 24};
      for (std::ptrdiff_t i = 0; i < 3; ++i) extended[static_cast<std::size_t>(band + points - 1 - i)] *= gregory[i];
    }
    std::vector<double> expected(wide.points(), 0.0);
    for (std::size_t j = 0; j < weight.size(); ++j)
      for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += weight[j] * extended[i + j];
    const GridFunction S(wide, std::move(expected));
    for (std::size_t i = 0; i < value.size(); ++i) {
      const double y = proximal_point(S, -h, mean[i]);
      const GridFunction::Jet at = S.at(y);
      if (!(1 + h * at.curvature > 0))
        fail(Fault::numerical, {"chain_optimal_cost: at step ", steps - 1 - k, " and x = ", p.grid.point(i),
                                " the cost is not convex in the control"});
      value[i] = h * p.running(p.grid.point(i)) + at.value + (y - mean[i]) * (y - mean[i]) / (2 * h);
    }
  }
  return GridFunction(p.grid, std::move(value))(x0);
}

ScalarControl::ScalarControl(ScalarControlProblem problem, int levels, int steps)
    : problem_(std::move(problem)), levels_(levels) {
  problem_.grid.check("scalar control");
  require(problem_.potential && problem_.running && problem_.terminal,
          "scalar control: a potential, a running and a terminal cost are needed");
  require(levels >= 3 && steps >= 1, "scalar control: ", levels, " levels of ", steps,
          " steps; at least 3 levels and 1 step are needed");
  require(std::isfinite(problem_.horizon) && problem_.horizon > 0, "scalar control: the horizon is ", problem_.horizon,
          ", expected a positive number");
  // Implicit Euler's error is a series in h: weights 1/3, -2, 8/3 of steps h, h/2, h/4 leave h^3. The finite volumes' is one in
  // width^2: weights -1/3, 4/3 leave width^4.
  const double in_time[] = {1.0 / 3, -2, 8.0 / 3}, in_space[] = {-1.0 / 3, 4.0 / 3};
  std::vector<std::vector<double>> sum(static_cast<std::size_t>(levels) + 1, std::vector<double>(problem_.grid.points(), 0.0));
  for (int space = 0; space < 2; ++space)
    for (int time = 0; time < 3; ++time) {
      const auto part = solve(1 << space, steps << time);
      const double weight = in_time[time] * in_space[space];
      for (std::size_t k = 0; k < sum.size(); ++k)
        for (std::size_t i = 0; i < sum[k].size(); ++i) sum[k][i] += weight * part[k][i];
    }
  for (auto& level : sum) value_.emplace_back(problem_.grid, std::move(level));
}

// V at the levels, on the points of problem_.grid, from a grid of `refine` times as many cells.
std::vector<std::vector<double>> ScalarControl::solve(int refine, int steps) const {
  UniformGrid grid = problem_.grid;
  grid.cells *= refine;
  const ImplicitStep step(problem_, grid, problem_.horizon / levels_ / steps);
  std::vector<double> psi(grid.points());
  for (std::size_t i = 0; i < psi.size(); ++i) psi[i] = std::exp(-problem_.terminal(grid.point(i)));
  if (problem_.stops_at_high) psi.back() = 1;
  std::vector<std::vector<double>> levels(static_cast<std::size_t>(levels_) + 1);
  for (std::size_t k = levels.size(); k-- > 0;) {
    for (std::size_t i = 0; i < psi.size(); i += static_cast<std::size_t>(refine)) {
      if (!(psi[i] > 0 && std::isfinite(psi[i])))
        fail(Fault::numerical, {"scalar control: psi = ", psi[i], " at x = ", grid.point(i), ", level ", k,
                                "; take a grid on which the costs stay below 700"});
      levels[k].push_back(-std::log(psi[i]));
    }
    if (k > 0)
      for (int s = 0; s < steps; ++s) step.solve(psi);
  }
  return levels;
}

double ScalarControl::interpolate(double x, double t, bool control) const {
  require(t >= 0 && t <= problem_.horizon, "scalar control: the time ", t, " is outside 0 to ", problem_.horizon);
  if (problem_.stops_at_high && x >= problem_.grid.high) return 0;
  const double inside = std::clamp(x, problem_.grid.low, problem_.grid.high);
  const auto at = [&](int level) {
    const GridFunction::Jet jet = value_[static_cast<std::size_t>(level)].at(inside);
    return control ? -jet.slope : jet.value;
  };
  const double position = t / problem_.horizon * levels_, nearest = std::round(position);
  if (std::abs(position - nearest) < 1e-9 * levels_) return at(static_cast<int>(nearest));
  const int first = std::clamp(static_cast<int>(position) - 1, 0, levels_ - 3);  // cubic through four levels
  double sum = 0;
  for (int i = first; i < first + 4; ++i) {
    double weight = 1;
    for (int j = first; j < first + 4; ++j)
      if (j != i) weight *= (position - j) / (i - j);
    sum += weight * at(i);
  }
  return sum;
}

}  // namespace costate::finetune
