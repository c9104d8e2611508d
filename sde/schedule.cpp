#include <costate/sde/schedule.h>
#include <costate/tensor/error.h>

#include <array>
#include <cmath>
#include <limits>
#include <numbers>

namespace costate::sde {

namespace {

constexpr std::array<std::string_view, 4> kFamilies = {"linear", "vp_linear", "vp_cosine", "vp_table"};

PathPoint linear_point(double t) {
  PathPoint p{};
  p.alpha = t, p.beta = 1 - t;
  p.alpha_dot = 1, p.beta_dot = -1;
  p.beta_beta_dot = -p.beta;
  p.wronskian = 1;
  p.kappa = 1 / t;
  p.eta = p.beta / t;
  return p;
}

// For every variance-preserving path beta beta' = -alpha alpha', hence eta = kappa (alpha^2 + beta^2) =
// kappa.
PathPoint vp_cosine_point(double t) {
  constexpr double half_pi = std::numbers::pi / 2;
  PathPoint p{};
  p.alpha = std::sin(half_pi * t), p.beta = std::sin(half_pi * (1 - t));  // sin, so that beta(1) is exactly 0
  p.alpha_dot = half_pi * p.beta, p.beta_dot = -half_pi * p.alpha;
  p.beta_beta_dot = p.beta * p.beta_dot;
  p.wronskian = half_pi;
  p.kappa = p.eta = half_pi * p.beta / p.alpha;
  return p;
}

// A variance-preserving path from log alpha and its derivative.
PathPoint vp_point(double log_alpha, double kappa) {
  PathPoint p{};
  p.kappa = p.eta = kappa;
  p.alpha = std::exp(log_alpha), p.beta = std::sqrt(-std::expm1(2 * log_alpha));
  p.alpha_dot = p.kappa * p.alpha;
  p.beta_beta_dot = -p.alpha * p.alpha_dot;
  p.beta_dot = p.beta_beta_dot / p.beta;
  p.wronskian = p.kappa * p.alpha / p.beta;
  return p;
}

PathPoint vp_linear_point(double t, double beta_min, double beta_max) {
  const double s = 1 - t;
  return vp_point(-s * (beta_min / 2 + (beta_max - beta_min) * s / 4),
                  (beta_min + (beta_max - beta_min) * s) / 2);
}

// Timestep i = T (1 - t) - 1, from T - 1 at t = 0 to -1, pure data, at t = 1. Between two of them the rate d
// log alpha/dt is constant; at a timestep it is that of the interval towards the data, which steps from there
// go through.
PathPoint vp_table_point(double t, const AlphaTable& table) {
  const auto count = static_cast<std::ptrdiff_t>(table.alpha2.size());
  const auto log_alpha = [&](std::ptrdiff_t i) {
    return i < 0 ? 0.0 : std::log(table.alpha2[static_cast<std::size_t>(i)]) / 2;
  };
  const double place = static_cast<double>(count) * (1 - t);  // i + 1: 0 at the data
  // A time that was computed as (i + 1)/T counts as that timestep.
  const double nearest_place = std::nearbyint(place);
  const bool at_timestep = std::abs(place - nearest_place) < 1e-9 * static_cast<double>(count);
  auto upper =
      static_cast<std::ptrdiff_t>(at_timestep ? nearest_place : std::ceil(place)) - 1;  // the noisier end
  const bool data_end = at_timestep && upper < 0;
  if (data_end) upper = 0;
  const double high = log_alpha(upper), low = log_alpha(upper - 1);
  const double share = data_end ? 0.0 : at_timestep ? 1.0 : place - static_cast<double>(upper);
  return vp_point(low + share * (high - low), (low - high) * static_cast<double>(count));
}

}  // namespace

PathPoint Schedule::at(double t) const {
  require(t >= 0 && t <= 1, "sde::Schedule: time ", t, " is outside [0, 1] (0 is noise, 1 is data)");
  PathPoint p{};
  switch (family) {
    case PathFamily::linear:
      p = linear_point(t);
      break;
    case PathFamily::vp_cosine:
      p = vp_cosine_point(t);
      break;
    case PathFamily::vp_linear:
      require(beta_min > 0 && beta_max >= beta_min && std::isfinite(beta_max),
              "sde::Schedule: the vp_linear path needs 0 < beta_min <= beta_max, but beta_min is ", beta_min,
              " and beta_max is ", beta_max);
      p = vp_linear_point(t, beta_min, beta_max);
      break;
    case PathFamily::vp_table:
      require(table && !table->alpha2.empty(),
              "sde::Schedule: the vp_table path has no table; take one from diffusion_schedule");
      p = vp_table_point(t, *table);
      break;
  }
  p.t = t;
  p.memoryless_sigma = std::sqrt(2 * p.eta);
  return p;
}

std::string Schedule::description() const {
  if (family == PathFamily::vp_table && table) return table->description;
  if (family != PathFamily::vp_linear) return std::string(name(family));
  return sentence({"vp_linear(beta_min=", beta_min, ", beta_max=", beta_max, ")"});
}

bool operator==(const Schedule& a, const Schedule& b) {
  if (a.family != b.family) return false;
  if (a.family == PathFamily::vp_table)
    return a.table == b.table || (a.table && b.table && a.table->alpha2 == b.table->alpha2);
  return a.family != PathFamily::vp_linear || (a.beta_min == b.beta_min && a.beta_max == b.beta_max);
}

std::string_view name(PathFamily family) { return kFamilies[static_cast<std::size_t>(family)]; }

PathFamily path_family(std::string_view word) {
  for (std::size_t i = 0; i < kFamilies.size(); ++i)
    if (kFamilies[i] == word) return static_cast<PathFamily>(i);
  const std::string near = nearest_of(word, kFamilies);
  fail(Fault::argument,
       {"\"", word, "\" is not a path family; the families are linear, vp_linear, vp_cosine and vp_table",
        near.empty() ? std::string() : "; did you mean \"" + near + "\"?"});
}

std::vector<double> uniform_grid(int steps) {
  require(steps >= 1, "sde::uniform_grid: the number of steps is ", steps, ", but at least 1 is needed");
  std::vector<double> t(static_cast<std::size_t>(steps) + 1);
  for (int k = 0; k <= steps; ++k) t[static_cast<std::size_t>(k)] = static_cast<double>(k) / steps;
  return t;
}

}  // namespace costate::sde
