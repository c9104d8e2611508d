#include <costate/finetune/problem/grid_control.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

namespace costate::finetune {
namespace {

// E f(y + s e) by the trapezoidal rule over |e| <= 8.5, whose error for the Gaussian weight is exp(-2 pi^2/step^2): on the grid
// itself, as a convolution, where its width is at most s; else between its points.
GridFunction blurred(const UniformGrid& grid, const GridFunction& f, double s) {
  if (s == 0) return f;
  const bool on_grid = grid.width() <= s;
  const double step = on_grid ? grid.width() / s : 0.5;
  const int n = static_cast<int>(std::ceil(8.5 / step));
  std::vector<double> weight;
  double total = 0;
  for (int j = -n; j <= n; ++j) total += weight.emplace_back(std::exp(-step * step * j * j / 2));
  for (double& w : weight) w /= total;
  std::vector<double> out(grid.points(), 0.0);
  if (on_grid) {
    const auto points = static_cast<int>(grid.points());
    std::vector<double> extended;
    for (int i = -n; i < points + n; ++i)
      extended.push_back(i >= 0 && i < points ? f.values()[static_cast<std::size_t>(i)] : f(grid.low + grid.width() * i));
    for (std::size_t j = 0; j < weight.size(); ++j)
      for (std::size_t i = 0; i < out.size(); ++i) out[i] += weight[j] * extended[i + j];
  } else {
    for (std::size_t i = 0; i < out.size(); ++i)
      for (int j = -n; j <= n; ++j) out[i] += weight[static_cast<std::size_t>(j + n)] * f(grid.point(i) + s * step * j);
  }
  return GridFunction(grid, std::move(out));
}

// The density of mean(X) + s e where s is wide enough that the points' images overlap: a sum of normal densities. Along the
// grid a normal density is a product of geometric sequences.
std::vector<double> spread(const UniformGrid& grid, const std::vector<double>& density, const std::vector<double>& mean,
                           double s) {
  std::vector<double> out(grid.points(), 0.0);
  const double h = grid.width(), ratio = std::exp(-h * h / (s * s));
  const double norm = h / (s * std::sqrt(2 * std::numbers::pi));
  const auto last = static_cast<std::ptrdiff_t>(out.size()) - 1, band = static_cast<std::ptrdiff_t>(8.5 * s / h) + 1;
  for (std::size_t j = 0; j < density.size(); ++j) {
    if (density[j] < 1e-30) continue;
    const double position = std::clamp((mean[j] - grid.low) / h, -1e9, 1e9);
    const auto centre = static_cast<std::ptrdiff_t>(std::lround(position));
    if (centre + band < 0 || centre - band > last) continue;
    const double offset = h * (static_cast<double>(centre) - position);  // of the nearest point from the mean
    const double peak = norm * density[j] * std::exp(-offset * offset / (2 * s * s));
    for (const int side : {1, -1}) {
      double term = peak, factor = std::exp(-(h * h + 2 * side * offset * h) / (2 * s * s));
      for (std::ptrdiff_t i = 0; i <= band; ++i) {
        const std::ptrdiff_t at = centre + side * i;
        if (at >= 0 && at <= last && (side > 0 || i > 0)) out[static_cast<std::size_t>(at)] += term;
        term *= factor, factor *= ratio;
      }
    }
  }
  return out;
}

// The density of mean(X) for a mean that increases where X is: p(x)/mean'(x) at the x of each point.
std::vector<double> pushed(const UniformGrid& grid, const GridFunction& density, const GridFunction& mean, int k) {
  std::vector<double> out(grid.points(), 0.0);
  const std::vector<double>&p = density.values(), &m = mean.values();
  const double floor = 1e-12 * *std::max_element(p.begin(), p.end());
  std::size_t begin = 0, end = p.size() - 1;
  while (p[begin] < floor) ++begin;
  while (p[end] < floor) --end;
  for (std::size_t j = begin, i = 0; j < end; ++j) {
    if (!(m[j + 1] > m[j]))
      fail(Fault::numerical,
           {"GridControl: the mean of step ", k, ", which has no noise to speak of, does not increase at x = ", grid.point(j),
            ", so that it folds the law"});
    for (; i < out.size() && grid.point(i) < m[j + 1]; ++i) {
      if (grid.point(i) < m[j]) continue;
      double low = grid.point(j), high = grid.point(j + 1), x = low + (high - low) * (grid.point(i) - m[j]) / (m[j + 1] - m[j]);
      for (int n = 0; n < 60 && high - low > 1e-14; ++n) {
        const GridFunction::Jet jet = mean.at(x);
        (jet.value < grid.point(i) ? low : high) = x;
        const double newton = x - (jet.value - grid.point(i)) / jet.slope;
        const double next = newton > low && newton < high ? newton : (low + high) / 2;
        if (std::abs(next - x) < 1e-14) break;
        x = next;
      }
      const double slope = mean.at(x).slope;
      out[i] = std::max(0.0, density(x)) / slope;
    }
  }
  return out;
}

}  // namespace

ScalarPrediction mixture_prediction(std::shared_ptr<const GaussianMixture> mixture, const sde::Chain& chain) {
  require(mixture && mixture->dim() == 1, "mixture_prediction: a mixture in one dimension is needed");
  return [mixture, schedule = chain.schedule, kind = chain.prediction](double t, std::span<const double> x,
                                                                       std::span<double> out) {
    mixture->denoised(schedule, static_cast<std::int64_t>(x.size()), x.data(), t, out.data());
    const sde::Affine map = sde::conversion(sde::Parametrisation::x1, kind, schedule, t);
    for (std::size_t i = 0; i < x.size(); ++i) out[i] = map.x * x[i] + map.prediction * out[i];
  };
}

GridControl::GridControl(const sde::Chain& chain, const ScalarPrediction& prediction,
                         const std::function<double(double)>& reward, const GridControlOptions& options)
    : options_(options) {
  sde::require_one_step(chain, "GridControl");
  options.grid.check("GridControl");
  require(prediction && reward, "GridControl: a prediction and a reward are needed");
  require(options.temperature > 0 && std::isfinite(options.temperature), "GridControl: the temperature is ",
          options.temperature, ", expected a positive number");
  require(options.first_step >= 0 && options.first_step <= chain.steps(), "GridControl: the first tuned step is ",
          options.first_step, ", expected 0 to ", chain.steps());
  require(options.initial.variance > 0 && std::isfinite(options.initial.variance) && std::isfinite(options.initial.mean),
          "GridControl: the initial law has mean ", options.initial.mean, " and variance ", options.initial.variance,
          ", expected finite numbers and a positive variance");
  std::vector<double> x, p(options.grid.points());
  for (std::size_t i = 0; i < options.grid.points(); ++i) x.push_back(options.grid.point(i));
  for (std::size_t k = 0; k < chain.A.size(); ++k) {
    prediction(chain.t[k], x, p);
    std::vector<double> mean(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) mean[i] = chain.A[k] * x[i] + chain.C[k] * p[i];
    require(std::all_of(mean.begin(), mean.end(), [](double v) { return std::isfinite(v); }),
            "GridControl: the prediction at t = ", chain.t[k], " is not finite on the grid");
    mean_.push_back(std::move(mean));
  }
  solve(chain, reward);
  base_ = propagate(chain, false), tuned_ = propagate(chain, true);

  // log Z and the tilt by the largest exponent, which may be beyond the range of exp.
  const std::vector<double>& r = value_.back().values();
  const std::vector<double>& density = base_.terminal.density.values();
  double largest = -std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < r.size(); ++i)
    if (density[i] > 0) largest = std::max(largest, r[i] / options.temperature + std::log(density[i]));
  std::vector<double> tilted(r.size(), 0.0);
  double z = 0;
  for (std::size_t i = 0; i < r.size(); ++i) {
    if (density[i] > 0) tilted[i] = std::exp(r[i] / options.temperature + std::log(density[i]) - largest);
    z += tilted[i] * options.grid.width();
  }
  for (double& v : tilted) v /= z;
  log_z_ = largest + std::log(z);
  tilt_ = law(GridFunction(options.grid, std::move(tilted)));
}

void GridControl::solve(const sde::Chain& chain, const std::function<double(double)>& reward) {
  const std::size_t K = chain.A.size();
  std::vector<double> value;
  for (std::size_t i = 0; i < options_.grid.points(); ++i) value.push_back(reward(options_.grid.point(i)));
  require(std::all_of(value.begin(), value.end(), [](double v) { return std::isfinite(v); }),
          "GridControl: the reward is not finite on the grid");
  value_.resize(K + 1), shift_.resize(K);
  value_[K] = GridFunction(options_.grid, value);
  for (std::size_t k = K; k-- > 0;) {
    shift_[k] = optimal_step(static_cast<int>(k), chain.std[k], mean_[k], value_[k + 1], value);
    value_[k] = GridFunction(options_.grid, value);
  }
}

// d_k on the grid; `value` receives V_k.
GridFunction GridControl::optimal_step(int k, double s, const std::vector<double>& mean, const GridFunction& next,
                                       std::vector<double>& value) {
  const UniformGrid& grid = options_.grid;
  const GridFunction expected = blurred(grid, next, s);  // S_k
  const bool controlled = k >= options_.first_step && s > 0;
  const double response = controlled ? s * s / options_.temperature : 0;
  std::vector<double> shift(mean.size(), 0.0);
  if (controlled) {
    for (std::size_t i = 0; i < mean.size(); ++i) {
      const double kappa = response * expected.at(grid.point(i)).curvature;
      require(kappa < 1, "GridControl: at step ", k, " and x = ", grid.point(i), " kappa = s^2 V''/a is ", kappa,
              ", and from 1 on a step's problem is not concave; raise the temperature ", options_.temperature);
      max_kappa_ = std::max(max_kappa_, kappa);
    }
  }
  for (std::size_t i = 0; i < mean.size(); ++i) {
    const double y = proximal_point(expected, response, mean[i]);
    shift[i] = y - mean[i];
    value[i] = expected(y);
    if (controlled && options_.penalty == KlPenalty::in_return) value[i] -= shift[i] * shift[i] / (2 * response);
  }
  return GridFunction(grid, std::move(shift));
}

GridControl::Outcome GridControl::propagate(const sde::Chain& chain, bool tuned) const {
  const UniformGrid& grid = options_.grid;
  std::vector<double> density;
  for (std::size_t i = 0; i < grid.points(); ++i)
    density.push_back(std::exp(-std::pow(grid.point(i) - options_.initial.mean, 2) / (2 * options_.initial.variance)) /
                      std::sqrt(2 * std::numbers::pi * options_.initial.variance));
  Outcome out;
  for (std::size_t k = 0; k < mean_.size(); ++k) {
    const double s = chain.std[k];
    std::vector<double> mean = mean_[k];
    if (tuned) {
      const std::vector<double>& d = shift_[k].values();
      for (std::size_t i = 0; i < mean.size(); ++i) {
        mean[i] += d[i];
        if (s > 0) out.path_kl += density[i] * grid.width() * d[i] * d[i] / (2 * s * s);
      }
    }
    // The steepest place where there is mass decides whether the images of the points overlap: then the sum over points has
    // the error exp(-2 pi^2 (s/distance)^2).
    double distance = 0;
    for (std::size_t i = 0; i + 1 < mean.size(); ++i)
      if (density[i] > 1e-12) distance = std::max(distance, std::abs(mean[i + 1] - mean[i]));
    if (s >= distance) {
      density = spread(grid, density, mean, s);
    } else {
      const GridFunction image(grid, pushed(grid, GridFunction(grid, density), GridFunction(grid, mean), static_cast<int>(k)));
      density = blurred(grid, image, s).values();
      for (double& p : density) p = std::max(p, 0.0);
    }
    double mass = 0;
    for (double p : density) mass += p * grid.width();
    if (!(std::abs(mass - 1) < 1e-4))
      fail(Fault::numerical, {"GridControl: after step ", static_cast<std::int64_t>(k), " the law on the grid from ", grid.low,
                              " to ", grid.high, " of ", grid.cells, " cells has mass ", mass,
                              "; take a wider or a finer grid"});
  }
  const std::vector<double>& r = value_.back().values();
  for (std::size_t i = 0; i < density.size(); ++i) out.reward += density[i] * r[i] * grid.width();
  out.objective = out.reward - options_.temperature * out.path_kl;
  out.terminal = law(GridFunction(grid, std::move(density)));
  return out;
}

GridControl::Law GridControl::law(GridFunction density) const {
  Law l;
  const std::vector<double>& p = density.values();
  const double h = options_.grid.width();
  for (std::size_t i = 0; i < p.size(); ++i) l.mean += p[i] * options_.grid.point(i) * h;
  for (std::size_t i = 0; i < p.size(); ++i) l.variance += p[i] * std::pow(options_.grid.point(i) - l.mean, 2) * h;
  l.density = std::move(density);
  return l;
}

}  // namespace costate::finetune
